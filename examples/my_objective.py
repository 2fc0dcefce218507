"""Reward-weighted matching: every sample is fitted, the better ones of a group more (Lee et al. 2023)."""

from __future__ import annotations

import torch
from pydantic import Field

from paretune.limits import PositiveReal
from paretune.ops.policy_losses import matching_log_prob
from paretune.training.objectives.forward import Fit, ForwardObjective, ForwardOptions, Noised


class WeightedOptions(ForwardOptions):
    temperature: PositiveReal = Field(default=1.0, description="low: the best samples count for more")


class Weighted(ForwardObjective[WeightedOptions]):
    options_kind = WeightedOptions

    def fit(self, at: Noised, velocity: torch.Tensor) -> Fit:
        weights = torch.exp(at.advantages / self.options.temperature)
        return Fit(-(weights * matching_log_prob(velocity, at.clean, at.noise)).mean())
