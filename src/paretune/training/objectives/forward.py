"""The base of forward-process objectives: add noise to the clean samples again, and compare velocities there.

Shapes: B samples; x [B, ...]; S slots, which are the noise levels of a sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import torch
from pydantic import Field

from ...config import RunConfig
from ...limits import Positive, PositiveReal
from ...models.flow import Conditions
from ...ops import policy_losses as losses
from .base import Options
from .flow import Batch, FlowObjective, Loss, Setting


class ForwardOptions(Options):
    """The options that every forward-process objective has."""

    times: Annotated[Positive, Field(le=1000)] = Field(default=2, description="noise levels a sample")
    time_shift: PositiveReal = Field(
        default=1.0, description="above 1, more of the noise levels are high, as SD3's shift"
    )


T = TypeVar("T", bound=ForwardOptions)


@dataclass(frozen=True)
class Noised:
    """B samples, each at one noise level: x = (1 - sigma) clean + sigma noise. sigma, advantages: [B]."""

    x: torch.Tensor
    sigma: torch.Tensor
    clean: torch.Tensor
    noise: torch.Tensor
    advantages: torch.Tensor
    conditions: Conditions


@dataclass(frozen=True)
class Fit:
    """total: the loss, a mean over B. ratio: mean importance ratio, where the loss has one."""

    total: torch.Tensor
    ratio: float = 1.0


class ForwardObjective(FlowObjective[T]):
    """A subclass gives `fit`: the loss of the velocity at noised samples."""

    def __init__(self, setting: Setting, options: T) -> None:
        super().__init__(setting, options)
        self.slots = options.times
        self.first = True

    @classmethod
    def trained_points(cls, config: RunConfig, options: Any) -> float:
        """See `Objective.trained_points`: the noise levels times the share of samples that are kept."""
        return options.times * (config.train.keep or config.train.group_size) / config.train.group_size

    def begin_epoch(self, batch: Batch, generator: torch.Generator) -> None:
        """Draw noise and noise levels of each group. Levels are spread evenly over (0, 1), then shifted."""
        self.batch = batch
        rows = int(batch.group.max()) + 1
        count = rows * self.slots
        spread = (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
        shift = self.options.time_shift
        spread = shift * spread / (1 + (shift - 1) * spread)
        sigmas = spread.view(-1, self.slots).clamp(0.02, 1.0)
        shape = (self.slots, rows, *batch.trajectories.clean.shape[1:])
        noise = torch.randn(shape, generator=generator)
        # The advantages of a group sum to zero, so at equal noise the gradient that its samples share
        # cancels.
        self.sigmas, self.noise = sigmas[batch.group], noise[:, batch.group]
        self.first = True  # until the first update the sampling weights are the current ones

    def noised(self, index: torch.Tensor, slot: int) -> Noised:
        """The samples in `index` at their noise level of one slot, on the policy's device."""
        device = self.policy.device
        conditions = self.batch.conditions.select(index)
        clean = self.batch.trajectories.clean[index].to(device)
        noise = self.noise[slot, index].to(device)
        sigma = self.sigmas[index, slot].to(device)
        advantages = self.batch.advantages[index].to(device)
        s = sigma.view(-1, *[1] * (clean.ndim - 1))
        return Noised((1 - s) * clean + s * noise, sigma, clean, noise, advantages, conditions)

    def loss(self, index: torch.Tensor, slot: int) -> Loss:
        """The loss of `fit`, plus the anchor's term."""
        at = self.noised(index, slot)
        velocity = self.velocity(at.x, at.sigma, at.conditions)
        fit = self.fit(at, velocity)
        if self.setting.kl == 0:
            return Loss(fit.total, 0.0, fit.ratio)
        reference = self.velocity_under(self.setting.reference_weights, at.x, at.sigma, at.conditions)
        kl = losses.velocity_kl(velocity, reference)
        return Loss(fit.total + self.setting.kl * kl, float(kl.detach()), fit.ratio)

    def fit(self, at: Noised, velocity: torch.Tensor) -> Fit:
        """The loss of `velocity`, predicted at the noised samples `at`."""
        raise NotImplementedError

    def old_velocity(self, at: Noised, velocity: torch.Tensor) -> torch.Tensor:
        """The velocity of the weights that drew the samples.

        Before the first update of an epoch these are the current weights, whose velocity is `velocity`.
        """
        if self.first and self.sampling_decay == 0:
            return velocity.detach()
        return self.velocity_under(self.setting.sampling_weights, at.x, at.sigma, at.conditions)

    def end_update(self) -> None:
        """Record that the current weights are no longer those that drew the samples."""
        self.first = False
