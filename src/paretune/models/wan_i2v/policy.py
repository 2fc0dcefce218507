"""Wan's image to video as a policy: any WanImageToVideoPipeline folder or hub id. Latents: [B, C, t, h, w].

The transformer sees the latents of the picture, as the first of otherwise empty frames, beside those of the
sample. That of 2.1 also sees what CLIP sees in the picture.
"""
# pyright: reportPrivateImportUsage=false
# diffusers fills its namespace lazily, so that its public names look private.

from __future__ import annotations

from typing import Any

import torch
from diffusers import WanImageToVideoPipeline

from ...inputs.pictures import open_picture
from ...types import ParetuneError
from ..family import Family
from ..flow import Conditions
from ..wan.policy import TARGETS, WanPolicy
from .family import CLIP_TOKENS, FAMILY


class WanImagePolicy(WanPolicy):
    """See `flow.FlowPolicy`."""

    kind: Any = WanImageToVideoPipeline
    family: Family = FAMILY
    # Flow-GRPO's list names these two as well; without them diffusers adds zeros in their place.
    targets = (*TARGETS, "attn2.add_k_proj", "attn2.add_v_proj")

    def denoiser(self) -> Any:
        """See `WanPolicy.denoiser`. Raises ParetuneError for a model that fixes the first latent frame."""
        if self.pipe.config.expand_timesteps:
            raise ParetuneError(
                f"model.path: {self.config.path} keeps the first frame of its samples (expand_timesteps), "
                "which is not supported: train it as text to video, by the model_index.json of a WanPipeline"
            )
        return super().denoiser()

    @property
    def text_key(self) -> list[Any]:
        """See `PipelinePolicy.text_key`; the latents of a picture have the size of a sample."""
        return [*super().text_key, *self.latent_shape]

    def embed_pictures(self, images: list[str | None]) -> dict[str, torch.Tensor]:
        """The pictures' latents with a mask before them, [P, 4 + C, t, h, w], and CLIP's sequence."""
        self.vae.to(self.device)
        size, encoder = self.shape, getattr(self.pipe, "image_encoder", None)
        latents, seen = list[torch.Tensor](), list[torch.Tensor]()
        for image in images:
            assert image is not None
            picture = open_picture(image)
            pixels = self.pipe.video_processor.preprocess(picture, height=size.height, width=size.width)
            _, condition = self.pipe.prepare_latents(
                pixels.to(self.device, torch.float32), 1, self.vae.config.z_dim, size.height, size.width,
                size.frames, torch.float32, self.device, None, torch.zeros(1, *self.latent_shape),
            )  # fmt: skip
            latents.append(condition)
            if encoder is not None:
                encoder.to(self.device)
                seen.append(self.pipe.encode_image(picture, self.device))
        for part in (self.vae, *([] if encoder is None else [encoder])):
            part.to("cpu")
        clip = {"picture_embeds": torch.cat(seen)} if seen else {}
        return {"picture": torch.cat(latents), **clip}

    def inputs(self, x: torch.Tensor, t: torch.Tensor, conditions: Conditions) -> dict[str, torch.Tensor]:
        """See `WanPolicy.inputs`."""
        made = super().inputs(x, t, conditions)
        made["x"] = torch.cat([x, conditions.more["picture"].to(x)], dim=1)
        if "picture_embeds" in conditions.more:
            made["encoder_hidden_states_image"] = conditions.more["picture_embeds"].to(self.dtype)
        return made

    def random_more(self, count: int) -> dict[str, torch.Tensor]:
        """See `PipelinePolicy.random_more`."""
        config = self.transformer.config
        channels = config.in_channels - self.latent_shape[0]
        sizes = {"picture": (channels, *self.latent_shape[1:])}
        if config.image_dim is not None:
            sizes["picture_embeds"] = (CLIP_TOKENS, config.image_dim)
        return {
            name: torch.randn(count, *size, device=self.device, dtype=self.dtype)
            for name, size in sizes.items()
        }
