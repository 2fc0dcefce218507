"""Flow-GRPO: the clipped policy gradient on the stochastic steps of the rollouts (Liu et al. 2025).

With `sampler: dance` it is DanceGRPO, with `sampler: cps` Flow-CPS, and with `ratio: guard` GRPO-Guard.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field, model_validator

from ...config import ModelConfig, RunConfig
from ...limits import PositiveReal
from ...models.flow import Sampling, stochastic_step
from ...ops import policy_losses as losses
from ...ops.flow_sde import random_steps
from ...types import ParetuneError
from .base import Options
from .flow import Batch, FlowObjective, Loss, Setting


class FlowGRPOOptions(Options):
    """Options of `flow_grpo`."""

    clip_range: PositiveReal = Field(default=1e-4, description="clip of the ratio")
    sampler: Literal["sde", "cps", "dance"] = Field(
        default="sde", description="stochastic steps: Flow-GRPO's, Flow-CPS's, or DanceGRPO's of constant eta"
    )
    noise_level: PositiveReal = Field(default=0.7, description="eta of the stochastic steps")
    window: tuple[int, int] | tuple[int, int, int] | None = Field(
        default=None,
        description="[first, last) stochastic, trained steps; default all but the last. "
        "[first, last, count]: only so many of them, drawn each epoch, are trained on",
    )
    ratio: Literal["plain", "guard"] = Field(
        default="plain", description="guard: normalised, so that the clip acts alike on all steps"
    )

    @model_validator(mode="after")
    def _check(self) -> FlowGRPOOptions:
        if self.window is not None and not 0 <= self.window[0] < self.window[1]:
            raise ValueError("window must be [first, last) with 0 <= first < last")
        if self.window is not None and len(self.window) == 3:
            first, last, count = self.window
            if not 0 < count <= last - first:
                raise ValueError(f"window: {count} steps cannot be drawn of the {last - first} in it")
        if self.sampler == "cps" and self.noise_level > 1:
            raise ValueError("noise_level is at most 1 with sampler: cps")
        return self

    def span(self, model: ModelConfig) -> tuple[int, int]:
        """The stochastic steps, [first, last)."""
        # The schedule's last step goes from (almost) no noise to none, so there is nothing to explore in it.
        return (0, model.steps - 1) if self.window is None else (self.window[0], self.window[1])

    def trained_steps(self, model: ModelConfig) -> int:
        """The number of stochastic steps that are trained on."""
        first, last = self.span(model)
        return self.window[2] if self.window is not None and len(self.window) == 3 else last - first


class FlowGRPO(FlowObjective[FlowGRPOOptions]):
    """See the module."""

    options_kind = FlowGRPOOptions

    def __init__(self, setting: Setting, options: FlowGRPOOptions) -> None:
        super().__init__(setting, options)
        self.slots = options.trained_steps(setting.model)
        self.schedule = self.policy.schedule(self.sampling.steps)

    @classmethod
    def check(cls, config: RunConfig, options: Any) -> None:
        """Check that the window lies within the model's steps."""
        last = config.model.steps - 1
        if options.span(config.model)[1] > last:
            raise ParetuneError(f"objective.options.window must end by model.steps - 1 = {last}")

    @classmethod
    def trained_points(cls, config: RunConfig, options: Any) -> float:
        """See `Objective.trained_points`: the trained steps times the share of samples that are kept."""
        share = (config.train.keep or config.train.group_size) / config.train.group_size
        return options.trained_steps(config.model) * share

    @classmethod
    def describe(cls, options: Any) -> str:
        """See `Objective.describe`."""
        return (
            f"clip {options.clip_range:g}, {options.sampler} of noise {options.noise_level:g}, "
            f"{options.ratio} ratio"
        )

    def make_sampling(self) -> Sampling:
        """Sampling with noise in the steps of the window."""
        model, options = self.setting.model, self.options
        return Sampling(
            model.steps, model.guidance_scale, options.span(model), options.sampler, options.noise_level,
            self.setting.train.micro_batch,
        )  # fmt: skip

    def begin_epoch(self, batch: Batch, generator: torch.Generator) -> None:
        """Draw the steps to train on. Their noise is in the rollouts already."""
        self.batch = batch
        self.steps = random_steps(self.sampling.window, self.slots, generator)

    def loss(self, index: torch.Tensor, slot: int) -> Loss:
        """The clipped loss of one step, plus the anchor's term."""
        device = self.policy.device
        t = self.batch.trajectories
        assert t.states is not None
        assert t.log_probs is not None
        assert t.means is not None
        conditions = self.batch.conditions.select(index)
        number = self.steps[slot]
        place = number - self.sampling.window[0]  # among the states that the rollouts kept
        x, after = t.states[index, place].to(device), t.states[index, place + 1].to(device)
        sigma = torch.full((len(x),), self.schedule.sigmas[number], device=device)
        velocity = self.velocity(x, sigma, conditions)
        step = stochastic_step(self.schedule, number, self.sampling, x, velocity, sample=after)
        old_log_prob = t.log_probs[index, place].to(device)
        if self.options.ratio == "guard":
            old_mean = t.means[index, place].to(device)
            ratio = losses.guard_ratio(step.log_prob, old_log_prob, step.mean, old_mean, step.std)
        else:
            ratio = losses.importance_ratio(step.log_prob, old_log_prob)
        advantages = self.batch.advantages[index].to(device)
        total = losses.clipped_policy_loss(ratio, advantages, self.options.clip_range)
        mean_ratio = float(ratio.mean().detach())
        if self.setting.kl == 0:
            return Loss(total, 0.0, mean_ratio)
        reference = self.velocity_under(self.setting.reference_weights, x, sigma, conditions)
        mean = stochastic_step(self.schedule, number, self.sampling, x, reference, sample=after).mean
        kl = losses.mean_kl(step.mean, mean, step.drift_std)
        return Loss(total + self.setting.kl * kl, float(kl.detach()), mean_ratio)
