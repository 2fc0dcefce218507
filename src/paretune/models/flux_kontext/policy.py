"""FLUX.1-Kontext as a policy: any FluxKontextPipeline folder or hub id.

The latents of the input picture follow those of the sample in the transformer's sequence, and what it
predicts for them is dropped. Pictures may differ in size: the samples of a batch are run by size.
"""
# pyright: reportPrivateImportUsage=false
# diffusers fills its namespace lazily, so that its public names look private.

from __future__ import annotations

from typing import Any

import torch
from diffusers import FluxKontextPipeline
from diffusers.pipelines.flux.pipeline_flux_kontext import PREFERRED_KONTEXT_RESOLUTIONS
from torch.nn.utils.rnn import pad_sequence

from ...inputs.pictures import open_picture
from ...types import ParetuneError
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
        self.vae.to(self.device)
        latents, sizes = list[torch.Tensor](), list[list[int]]()
        side = 2 * self.pipe.vae_scale_factor
        for image in images:
            assert image is not None
            pixels = self._pixels(image)
            z = self.vae.encode(pixels.to(self.device, self.vae.dtype)).latent_dist.mode()
            latents.append(self.scale(z)[0].float())
            sizes.append([pixels.shape[-2] // side, pixels.shape[-1] // side])
        self.vae.to("cpu")
        return {
            "picture": pad_sequence(latents, batch_first=True),
            "picture_size": torch.tensor(sizes, device=self.device),
        }

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
        sizes, group = torch.unique(conditions.more["picture_size"], dim=0, return_inverse=True)
        rows = [(group == number).nonzero().flatten() for number in range(len(sizes))]
        parts = [
            self._beside(x[row], sigma[row], conditions.select(row), guidance, (int(height), int(width)))
            for row, (height, width) in zip(rows, sizes.tolist(), strict=True)
        ]
        return torch.cat(parts)[torch.cat(rows).argsort()]

    def _beside(
        self, x: torch.Tensor, sigma: torch.Tensor, conditions: Conditions, guidance: float,
        size: tuple[int, int],
    ) -> torch.Tensor:  # fmt: skip
        """The velocity of samples beside input pictures of one size, [height, width] in tokens."""
        side = 2 * self.pipe.vae_scale_factor
        own = self.positions(self.shape.height // side, self.shape.width // side)
        seen = self.positions(*size)
        seen[:, 0] = 1  # as the pipeline tells the two pictures apart
        picture = conditions.more["picture"][:, : size[0] * size[1]].to(x.dtype)
        both = torch.cat([x, picture], dim=1)
        return self.predict(both, torch.cat([own, seen]), sigma, conditions, guidance)[:, : x.shape[1]]

    def random_more(self, count: int) -> dict[str, torch.Tensor]:
        """See `PipelinePolicy.random_more`: pictures of 1024x1024 pixels, or of a sample's size."""
        side = 2 * self.pipe.vae_scale_factor
        size = (1024, 1024) if self._resized else (self.shape.height, self.shape.width)
        height, width = size[0] // side, size[1] // side
        tokens = (count, height * width, self.latent_shape[-1])
        return {
            "picture": torch.randn(tokens, device=self.device, dtype=self.dtype),
            "picture_size": torch.tensor([[height, width]] * count, device=self.device),
        }
