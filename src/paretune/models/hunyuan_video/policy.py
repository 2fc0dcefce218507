"""HunyuanVideo as a policy: any HunyuanVideoPipeline folder or hub id. Latents: [B, C, t, h, w].

The pipeline writes a prompt into a system text, which Llama encodes. The first 95 tokens, the system text,
are dropped. CLIP gives the pooled vector. Guidance is an input of the model.
"""
# pyright: reportPrivateImportUsage=false
# diffusers fills its namespace lazily, so that its public names look private.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import HunyuanVideoPipeline

from ...reward_tokens.pipelines import Scaled
from ..clips import ClipPolicy
from ..flow import Conditions
from ..options import read_options
from ..shapes import Shape
from ..tiles import Axis, clip_axes
from .family import FAMILY, TEXT_TOKENS, VideoOptions, time_factor

# The text refiner's attention modules have the same endings, and get adapters too.
TARGETS = (
    "attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0",
    "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out",
)  # fmt: skip


class HunyuanVideoPolicy(ClipPolicy):
    """See `flow.FlowPolicy`."""

    kind = HunyuanVideoPipeline
    family = FAMILY
    targets: tuple[str, ...] = TARGETS
    encoders = ("text_encoder", "text_encoder_2")

    def check_size(self) -> Shape:
        """Latents [C, t, h, w]. Large clips are encoded in diffusers' tiles, and decoded by `axes`."""
        # diffusers' tiles in time require the nominal factor; otherwise a clip is one tile in time.
        nominal = self.vae.temporal_compression_ratio
        self.vae.use_framewise_encoding = time_factor(self.vae.config) == nominal
        self.vae.use_framewise_decoding = False
        if self.pipe.vae_scale_factor_spatial > 1:
            self.vae.enable_tiling()
        return super().check_size()

    def axes(self) -> Sequence[Axis] | None:
        """See `ClipPolicy.axes`. An autoencoder that compresses nothing decodes small clips only."""
        options, vae = read_options(VideoOptions, self.config), self.vae
        if options.tiles == "none" or vae.spatial_compression_ratio == 1:
            return None
        return clip_axes(
            vae.tile_sample_min_height, vae.spatial_compression_ratio, time_factor(vae.config)
        )

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """See `ClipPolicy.decode_latents`."""
        tiling, self.vae.use_tiling = self.vae.use_tiling, False
        try:
            return super().decode_latents(latents)
        finally:
            self.vae.use_tiling = tiling

    def embed(self, texts: list[str]) -> dict[str, torch.Tensor]:
        """Llama's sequence with its mask, and CLIP's pooled vector."""
        embeds, pooled, mask = self.pipe.encode_prompt(
            texts, device=self.device, max_sequence_length=self.options.max_sequence_length or TEXT_TOKENS
        )
        return {"embeds": embeds, "pooled": pooled, "mask": mask.float()}

    def encode(
        self, prompts: Sequence[str], guidance: bool, tokens: Sequence[Scaled] = (), batch: int = 64
    ) -> Conditions:
        """See `PipelinePolicy.encode`. Positions after the longest prompt are masked, so they are cut off."""
        padded = super().encode(prompts, guidance, tokens, batch)
        assert padded.mask is not None
        longest = int(padded.mask.sum(1).max())
        return Conditions(padded.embeds[:, :longest], padded.pooled, mask=padded.mask[:, :longest])

    def text_widths(self) -> dict[str, int]:
        """See `PipelinePolicy.text_widths`."""
        config = self.transformer.config
        return {"embeds": config.text_embed_dim, "pooled": config.pooled_projection_dim}

    def velocity(
        self, x: torch.Tensor, sigma: torch.Tensor, conditions: Conditions, guidance: float
    ) -> torch.Tensor:
        """The transformer's output, with guidance as an input. float32 [B, C, t, h, w]."""
        assert conditions.mask is not None
        assert conditions.pooled is not None
        strength = self.guidance_input(len(x), guidance, 1000.0)
        v = self.run_transformer(
            x,
            timestep=sigma * 1000,
            guidance=None if strength is None else strength.to(self.dtype),
            pooled_projections=conditions.pooled.to(self.dtype),
            encoder_hidden_states=conditions.embeds.to(self.dtype),
            encoder_attention_mask=conditions.mask.to(self.dtype),
        )
        return v.float()

    def set_timesteps(self, scheduler: Any, steps: int) -> None:
        """As HunyuanVideoPipeline does: evenly spaced sigmas down to 1/N, then the scheduler's shift."""
        shift = read_options(VideoOptions, self.config).shift
        if shift is not None:
            scheduler.set_shift(shift)
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.0, steps + 1)[:-1])
