"""The base class of policies whose samples are clips, whose axes an autoencoder orders otherwise."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..types import ParetuneError
from .pipelines import PipelinePolicy
from .tiles import Axis, decode_in_tiles


class ClipPolicy(PipelinePolicy):
    """See `PipelinePolicy`. Latents: [B, C, t, h, w]; samples: [B, T, 3, H, W]."""

    def decode(self, latents: torch.Tensor, batch: int = 8) -> torch.Tensor:
        """Clips float32 [B, T, 3, H, W] in [0, 1]."""
        return super().decode(latents, batch).transpose(1, 2).contiguous()

    def axes(self) -> Sequence[Axis] | None:
        """How the autoencoder's latents [t, h, w] are decoded in tiles; None: whole."""
        return None

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """See `AutoencoderPart.decode_latents`. The autoencoder decodes tiles, which are put together."""
        axes, whole = self.axes(), super().decode_latents
        return whole(latents) if axes is None else decode_in_tiles(whole, latents, axes)

    def encode_media(self, pixels: torch.Tensor, batch: int = 1) -> torch.Tensor:
        """Clips [B, T, 3, H, W] in [0, 1] -> latents. Raises ParetuneError for other sizes."""
        if pixels.shape[1] != self.shape.frames:
            raise ParetuneError(
                f"a clip of {pixels.shape[1]} frames cannot be encoded: the model's have {self.shape.frames} "
                "(model.options.frames)"
            )
        return super().encode_media(pixels.transpose(1, 2), batch)
