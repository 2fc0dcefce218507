"""FLUX.1-Kontext as a policy: any FluxKontextPipeline folder or hub id.

The latents of the input picture follow those of the sample in the transformer's sequence, and what it
predicts for them is dropped. Pictures may differ in size: the samples of a batch are run by size.
"""
# pyright: reportPrivateImportUsage=false
# diffusers fills its namespace lazily, so that its public names look private.

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from diffusers import FluxKontextPipeline
from diffusers.pipelines.flux.pipeline_flux_kontext import PREFERRED_KONTEXT_RESOLUTIONS

from ...inputs.pictures import open_picture
from ...types import ParetuneError
from ..beside import by_size, encode_pictures, pictures_of, random_pictures, size_of
from ..family import Family
from ..flow import Conditions
from ..flux.policy import FluxPolicy
from ..options import read_options
from .family import FAMILY, KontextOptions


class KontextPolicy(FluxPolicy):
    """See `flow.FlowPolicy`. Latents: [B, h/2 * w/2, 4C]."""

    kind: Any = FluxKontextPipeline
    family: Family = FAMILY

    @property
    def text_key(self) -> list[Any]:
        """See `PipelinePolicy.text_key`; the size of a picture depends on the option."""
        return [*super().text_key, self._resized]

    @property
    def _resized(self) -> bool:
        return read_options(KontextOptions, self.config).resize_picture

    def embed_pictures(self, images: list[str | None]) -> dict[str, torch.Tensor]:
        """The packed latents of the pictures, [P, M, 4C], and their sizes in tokens, [P, 2].

        Latents of smaller pictures are followed by zeros, which `velocity` leaves out.
        """
        return encode_pictures(self, (self._pixels(image) for image in images if image is not None))

    def _pixels(self, image: str) -> torch.Tensor:
        """A picture in [-1, 1], [1, 3, h, w], resized as the pipeline does."""
        picture, side = open_picture(image), 2 * self.pipe.vae_scale_factor
        if min(picture.size) < side:
            size = f"{picture.width}x{picture.height}"
            raise ParetuneError(f"the picture {image} has {size} pixels; {side}x{side} are the least")
        height, width = self.pipe.image_processor.get_default_height_width(picture)
        if self._resized:
            ratio = width / height
            _, width, height = min((abs(ratio - w / h), w, h) for w, h in PREFERRED_KONTEXT_RESOLUTIONS)
            height, width = height // side * side, width // side * side
        return self.pipe.image_processor.preprocess(picture, height, width)

    def velocity(
        self, x: torch.Tensor, sigma: torch.Tensor, conditions: Conditions, guidance: float
    ) -> torch.Tensor:
        """See `FluxPolicy.velocity`. Samples whose pictures have the same size are run together."""
        return by_size(x, sigma, conditions, partial(self._beside, guidance=guidance))

    def _beside(
        self, x: torch.Tensor, sigma: torch.Tensor, conditions: Conditions, guidance: float
    ) -> torch.Tensor:
        """The velocity of samples beside input pictures of one size."""
        side = 2 * self.pipe.vae_scale_factor
        own = self.positions(self.shape.height // side, self.shape.width // side)
        seen = self.positions(*size_of(conditions))
        seen[:, 0] = 1  # as the pipeline tells the two pictures apart
        both = torch.cat([x, pictures_of(conditions).to(x.dtype)], dim=1)
        return self.predict(both, torch.cat([own, seen]), sigma, conditions, guidance)[:, : x.shape[1]]

    def random_more(self, count: int) -> dict[str, torch.Tensor]:
        """See `PipelinePolicy.random_more`: pictures of 1024x1024 pixels, or of a sample's size."""
        size = (1024, 1024) if self._resized else (self.shape.height, self.shape.width)
        return random_pictures(self, count, *size)
