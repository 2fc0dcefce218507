"""SFT: plain flow matching on the best samples of each group that the round's first model draws."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field

from ...config import RunConfig
from ...limits import Share
from ...ops.advantages import best_of_group
from ...ops.policy_losses import matching_log_prob
from ...types import ParetuneError
from ..mixture import Mixture, Scores
from .forward import Fit, ForwardObjective, ForwardOptions, Noised


class SFTOptions(ForwardOptions):
    """Options of `sft`."""

    share: Share = Field(
        default=0.25, description="the share of each group, its best samples, that is trained on"
    )


class SFT(ForwardObjective[SFTOptions]):
    """See the module."""

    options_kind = SFTOptions
    one_reward = True
    sampling_decay = None  # all samples come from the model that the round starts with

    @classmethod
    def trained_points(cls, config: RunConfig, options: Any) -> float:
        """See `Objective.trained_points`: the noise levels times the share of samples that are kept."""
        return options.times * options.share

    def advantages(self, mixture: Mixture, scores: Scores) -> torch.Tensor:
        """1 for the samples to train on, else 0. [P, G]."""
        return best_samples(mixture, scores, self.options.share)

    def chosen(self, advantages: torch.Tensor) -> torch.Tensor:
        """The samples with advantage 1."""
        return advantages > 0

    def fit(self, at: Noised, velocity: torch.Tensor) -> Fit:
        """The error of the velocity. SFT compares it with no other velocity."""
        return Fit(-matching_log_prob(velocity, at.clean, at.noise).mean())


def best_samples(mixture: Mixture, scores: Scores, share: float) -> torch.Tensor:
    """1 for the best share of each group, else 0, [P, G]. Raises ParetuneError for several rewards."""
    better = mixture.oriented(scores)
    if len(better) > 1:
        raise ParetuneError("objective sft trains on one reward; it has no joint form")
    return best_of_group(better[0], share)
