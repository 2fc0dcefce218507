"""From rollouts to a loss: forward-process objectives (NFT, AWM, SFT) and the trajectory one (Flow-GRPO).

An objective says how to sample, prepares an epoch's rollouts, and gives the loss of some samples at one
of its `slots` (noise levels, or steps of the window). The arithmetic itself is in ops/policy_losses.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch

from ..config import ModelConfig, ObjectiveConfig
from ..ops import policy_losses as losses
from ..ops.flow_sde import random_steps
from ..policies.adapters import only, swapped
from ..policies.flow import Conditions, FlowPolicy, Sampling, Trajectories, stochastic_step


@dataclass(frozen=True)
class Batch:
    """The kept samples of an epoch. trajectories: B of them; advantages [B]; conditions of B prompts.

    group: [B], which samples belong together, numbered from 0.
    """

    trajectories: Trajectories
    advantages: torch.Tensor
    conditions: Conditions
    group: torch.Tensor


@dataclass(frozen=True)
class Loss:
    """total: to minimise. kl: its unweighted anchor term. ratio: mean importance ratio (1 on policy)."""

    total: torch.Tensor
    kl: float
    ratio: float


class Objective(Protocol):
    """What the trainer asks of an objective."""

    slots: int
    sampling: Sampling

    def begin_epoch(self, batch: Batch, generator: torch.Generator) -> None:
        """Take an epoch's samples; draw the noise that training adds to them."""
        ...

    def loss(self, index: torch.Tensor, slot: int) -> Loss:
        """The loss of the samples in `index` at one slot."""
        ...


class _Base:
    """What both kinds share: the policy, its settings and its reference velocity."""

    def __init__(
        self,
        policy: FlowPolicy,
        config: ObjectiveConfig,
        sampling: Sampling,
        kl: float,
        parameters: dict[str, torch.nn.Parameter],
        old: dict[str, torch.Tensor],
    ) -> None:
        self.policy, self.config, self.sampling, self.kl = policy, config, sampling, kl
        self.parameters, self.old = parameters, old
        self.batch: Batch

    def _velocity(self, x: torch.Tensor, sigma: torch.Tensor, cond: Conditions) -> torch.Tensor:
        return self.policy.velocity(x, sigma, cond, self.sampling.guidance)

    @torch.no_grad()
    def _velocity_under(
        self, weights: AbstractContextManager[None], x: torch.Tensor, sigma: torch.Tensor, cond: Conditions
    ) -> torch.Tensor:
        with weights:
            return self._velocity(x, sigma, cond)

    def _reference(self) -> AbstractContextManager[None]:
        """The anchor: the round's own start, or the original base."""
        return only(self.policy.transformer, policy=False, parents=self.config.anchor == "round")


class ForwardObjective(_Base):
    """NFT, AWM and SFT: noise the clean samples again, compare the velocity with the one they came from."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.slots = self.config.times

    def begin_epoch(self, batch: Batch, generator: torch.Generator) -> None:
        """Draw noise and noise levels of each group, levels spread evenly over (0, 1) and shifted."""
        self.batch = batch
        rows = int(batch.group.max()) + 1
        count = rows * self.slots
        spread = (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
        shift = self.config.time_shift
        spread = shift * spread / (1 + (shift - 1) * spread)
        sigmas = spread.view(-1, self.slots).clamp(0.02, 1.0)
        shape = (self.slots, rows, *batch.trajectories.clean.shape[1:])
        noise = torch.randn(shape, generator=generator)
        # Advantages of a group sum to zero: at one noise, the gradient that its samples share drops out.
        self.sigmas, self.noise = sigmas[batch.group], noise[:, batch.group]
        self.first = True  # until the first update the sampling weights are the current ones

    def loss(self, index: torch.Tensor, slot: int) -> Loss:
        """See `Objective.loss`."""
        device = self.policy.device
        cond = self.batch.conditions.select(index)
        clean = self.batch.trajectories.clean[index].to(device)
        noise = self.noise[slot, index].to(device)
        sigma = self.sigmas[index, slot].to(device)
        advantages = self.batch.advantages[index].to(device)
        s = sigma.view(-1, *[1] * (clean.ndim - 1))
        x = (1 - s) * clean + s * noise
        v = self._velocity(x, sigma, cond)
        supervised = self.config.name == "sft"  # looks at no other velocity than its own
        on_policy = supervised or (self.first and self.config.old_decay == 0)
        old = v.detach() if on_policy else self._velocity_under(
            swapped(self.parameters, self.old), x, sigma, cond
        )
        ratio = torch.ones(())
        if self.config.name == "nft":
            total = losses.nft_loss(
                v, old, x, clean, sigma, advantages, self.config.nft_beta, self.config.advantage_clip
            )
        elif supervised:
            total = -losses.matching_log_prob(v, clean, noise).mean()
        else:
            now = losses.matching_log_prob(v, clean, noise)
            before = losses.matching_log_prob(old, clean, noise)
            ratio = losses.importance_ratio(now, before).mean().detach()
            total = losses.awm_loss(now, before, advantages, self.config.clip_range)
        kl = torch.zeros(())
        if self.kl > 0:
            reference = self._velocity_under(self._reference(), x, sigma, cond)
            kl = losses.velocity_kl(v, reference)
            total = total + self.kl * kl
        return Loss(total, float(kl.detach()), float(ratio))


class TrajectoryObjective(_Base):
    """Flow-GRPO: score again the stochastic steps that were taken."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        first, last = self.sampling.window
        chosen = self.config.window
        self.slots = chosen[2] if chosen is not None and len(chosen) == 3 else last - first
        self.schedule = self.policy.schedule(self.sampling.steps)

    def begin_epoch(self, batch: Batch, generator: torch.Generator) -> None:
        """Draw the steps to train on; the rollouts hold their own noise."""
        self.batch = batch
        self.steps = random_steps(self.sampling.window, self.slots, generator)

    def loss(self, index: torch.Tensor, slot: int) -> Loss:
        """See `Objective.loss`."""
        device = self.policy.device
        t = self.batch.trajectories
        assert t.states is not None
        assert t.log_probs is not None
        assert t.means is not None
        cond = self.batch.conditions.select(index)
        step_index = self.steps[slot]
        place = step_index - self.sampling.window[0]  # among the states that the rollouts kept
        x, after = t.states[index, place].to(device), t.states[index, place + 1].to(device)
        sigma = torch.full((len(x),), self.schedule.sigmas[step_index], device=device)
        v = self._velocity(x, sigma, cond)
        step = stochastic_step(self.schedule, step_index, self.sampling, x, v, sample=after)
        old_log_prob = t.log_probs[index, place].to(device)
        if self.config.ratio == "guard":
            old_mean = t.means[index, place].to(device)
            ratio = losses.guard_ratio(step.log_prob, old_log_prob, step.mean, old_mean, step.std)
        else:
            ratio = losses.importance_ratio(step.log_prob, old_log_prob)
        advantages = self.batch.advantages[index].to(device)
        total = losses.clipped_policy_loss(ratio, advantages, self.config.clip_range)
        kl = torch.zeros(())
        if self.kl > 0:
            reference = self._velocity_under(self._reference(), x, sigma, cond)
            mean = stochastic_step(self.schedule, step_index, self.sampling, x, reference, sample=after).mean
            kl = losses.mean_kl(step.mean, mean, step.drift_std)
            total = total + self.kl * kl
        return Loss(total, float(kl.detach()), float(ratio.mean().detach()))


def make_objective(
    policy: FlowPolicy,
    config: ObjectiveConfig,
    model: ModelConfig,
    kl: float,
    batch: int,
    parameters: dict[str, torch.nn.Parameter],
    old: dict[str, torch.Tensor],
) -> Objective:
    """The objective that a recipe names, with the sampling it needs."""
    trajectory = config.name == "flow_grpo"
    # The schedule's last step goes from (almost) no noise to none: nothing is left to explore there.
    whole = (0, model.steps - 1) if config.window is None else config.window[:2]
    window = whole if trajectory else (0, 0)
    sampling = Sampling(
        model.steps, model.guidance_scale, window, config.sampler, config.noise_level, batch
    )
    kind = TrajectoryObjective if trajectory else ForwardObjective
    return kind(policy, config, sampling, kl, parameters, old)


