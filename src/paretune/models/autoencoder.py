"""What policies on a diffusers pipeline do with its autoencoder: latents to samples and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..config import ModelConfig
from ..types import ParetuneError
from .checked import loading
from .overflow import check_finite
from .shapes import Shape


class AutoencoderPart:
    """The part of `pipelines.PipelinePolicy`, which sets its attributes, that decodes and encodes."""

    config: ModelConfig
    device: torch.device
    shape: Shape
    vae: Any
    _used: set[str]  # parts that have worked once

    @contextmanager
    def _first(self, part: str) -> Iterator[None]:
        """Turn errors at the first use of a part, where a wrong configuration shows, into a ParetuneError."""
        if part in self._used:
            yield
            return
        with loading(f"model.path: the {part} of {self.config.path} does not work as its config.json says"):
            yield
        self._used.add(part)

    def unscale(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents of the transformer -> latents of the autoencoder."""
        config = self.vae.config
        return latents / config.scaling_factor + (getattr(config, "shift_factor", None) or 0.0)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor, batch: int = 64) -> torch.Tensor:
        """Decode latents as the pipeline does: unscale, VAE, [-1, 1] -> [0, 1]. float32 [B, 3, H, W]."""
        check_finite(latents, "the samples", self.config)
        self.vae.to(self.device)
        parts = []
        for z in latents.split(batch):
            with self._first("vae"):
                z = self.unscale(z.to(self.device, self.vae.dtype))
                decoded = self.decode_latents(z)
            parts.append((decoded / 2 + 0.5).clamp(0, 1).float().cpu())
        self.vae.to("cpu")
        release(self.device)
        return torch.cat(parts)

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents of the autoencoder -> its output."""
        return self.vae.decode(latents, return_dict=False)[0]

    def scale(self, latents: torch.Tensor) -> torch.Tensor:
        """The inverse of `unscale`: latents of the autoencoder -> latents of the transformer."""
        config = self.vae.config
        return (latents - (getattr(config, "shift_factor", None) or 0.0)) * config.scaling_factor

    @torch.no_grad()
    def encode_media(self, pixels: torch.Tensor, batch: int = 8) -> torch.Tensor:
        """Samples [B, .., 3, H, W] in [0, 1] -> latents, as in the pipeline's image-to-image variant.

        Latents are the mean of the autoencoder's distribution, so that the same pixels give the same latents.
        Raises ParetuneError for pixels of another size than the model's samples.
        """
        wanted = (self.shape.height, self.shape.width)
        if tuple(pixels.shape[-2:]) != wanted:
            raise ParetuneError(
                f"samples of {pixels.shape[-1]}x{pixels.shape[-2]} pixels cannot be encoded: the model's are "
                f"{wanted[1]}x{wanted[0]} (model.width, model.height)"
            )
        self.vae.to(self.device)
        parts = []
        for x in pixels.split(batch):
            z = self.vae.encode(2 * x.to(self.device, self.vae.dtype) - 1).latent_dist.mode()
            parts.append(self.scale(z).float().cpu())
        self.vae.to("cpu")
        release(self.device)
        return torch.cat(parts)


def release(device: torch.device) -> None:
    """Return unused memory to the accelerator."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
