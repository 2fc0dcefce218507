"""The base class of policies whose samples are clips, whose axes an autoencoder orders otherwise."""

from __future__ import annotations

import torch

from ..types import ParetuneError
from .pipelines import PipelinePolicy


class ClipPolicy(PipelinePolicy):
    """See `PipelinePolicy`. Latents: [B, C, t, h, w]; samples: [B, T, 3, H, W]."""

    def decode(self, latents: torch.Tensor, batch: int = 8) -> torch.Tensor:
        """Clips float32 [B, T, 3, H, W] in [0, 1]."""
        return super().decode(latents, batch).transpose(1, 2).contiguous()

    def encode_media(self, pixels: torch.Tensor, batch: int = 1) -> torch.Tensor:
        """Clips [B, T, 3, H, W] in [0, 1] -> latents. Raises ParetuneError for other sizes."""
        if pixels.shape[1] != self.shape.frames:
            raise ParetuneError(
                f"a clip of {pixels.shape[1]} frames cannot be encoded: the model's have {self.shape.frames} "
                "(model.options.frames)"
            )
        return super().encode_media(pixels.transpose(1, 2), batch)
