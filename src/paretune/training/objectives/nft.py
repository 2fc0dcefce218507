"""NFT: learn from good and bad samples at once (DiffusionNFT, Zheng et al. 2025)."""

from __future__ import annotations

import torch
from pydantic import Field

from ...limits import Decay, PositiveReal
from ...ops.policy_losses import nft_loss
from .flow import Setting
from .forward import Fit, ForwardObjective, ForwardOptions, Noised


class NFTOptions(ForwardOptions):
    """Options of `nft`."""

    beta: PositiveReal = Field(
        default=0.5, description="how far the good and the bad branch lie from the velocity that sampled"
    )
    old_decay: Decay = Field(
        default=0.0, description="how much of the sampling copy stays each epoch"
    )


class NFT(ForwardObjective[NFTOptions]):
    """See the module."""

    options_kind = NFTOptions

    def __init__(self, setting: Setting, options: NFTOptions) -> None:
        super().__init__(setting, options)
        self.sampling_decay = options.old_decay

    def fit(self, at: Noised, velocity: torch.Tensor) -> Fit:
        """See `policy_losses.nft_loss`."""
        old, most = self.old_velocity(at, velocity), self.setting.settings.advantage_clip
        return Fit(
            nft_loss(velocity, old, at.x, at.clean, at.sigma, at.advantages, self.options.beta, most)
        )
