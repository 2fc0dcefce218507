"""AWM: the clipped policy gradient on the matching loss (advantage-weighted matching, Xue et al. 2025)."""

from __future__ import annotations

import torch
from pydantic import Field

from ...limits import PositiveReal
from ...ops.policy_losses import awm_loss, importance_ratio, matching_log_prob
from .forward import Fit, ForwardObjective, ForwardOptions, Noised


class AWMOptions(ForwardOptions):
    """Options of `awm`."""

    clip_range: PositiveReal = Field(default=1e-4, description="clip of the ratio")


class AWM(ForwardObjective[AWMOptions]):
    """See the module."""

    options_kind = AWMOptions

    def fit(self, at: Noised, velocity: torch.Tensor) -> Fit:
        """See `policy_losses.awm_loss`."""
        now = matching_log_prob(velocity, at.clean, at.noise)
        before = matching_log_prob(self.old_velocity(at, velocity), at.clean, at.noise)
        ratio = importance_ratio(now, before).mean().detach()
        return Fit(awm_loss(now, before, at.advantages, self.options.clip_range), float(ratio))
