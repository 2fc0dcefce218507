"""FLUX.1 as a policy: any FluxPipeline folder or hub id. Latents are packed: 2x2 of them are one token.

Text enters as CLIP's pooled vector and as T5's sequence. Guidance is an input of the model, which was
distilled, so no step needs two passes.
"""
# pyright: reportPrivateImportUsage=false
# diffusers fills its namespace lazily, so that its public names look private.

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import FluxPipeline
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from ..flow import Conditions
from ..pipelines import PipelinePolicy
from .family import FAMILY, T5_TOKENS

# peft matches the ends of names: "attn.to_q" matches in both kinds of blocks. Single-stream blocks have no
# attn.to_out: their proj_out also takes the feed-forward half, and Flow-GRPO does not adapt it.
TARGETS = (
    "attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0",
    "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out",
    "ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2",
)  # fmt: skip


class FluxPolicy(PipelinePolicy):
    """See `flow.FlowPolicy`. Latents: [B, h/2 * w/2, 4C]."""

    kind = FluxPipeline
    family = FAMILY
    targets: tuple[str, ...] = TARGETS
    encoders = ("text_encoder", "text_encoder_2")

    def embed(self, texts: list[str]) -> dict[str, torch.Tensor]:
        """CLIP's pooled vector and T5's sequence."""
        length = self.options.max_sequence_length or T5_TOKENS
        embeds, pooled, _ = self.pipe.encode_prompt(
            texts, texts, device=self.device, max_sequence_length=length
        )
        return {"embeds": embeds, "pooled": pooled}

    def velocity(
        self, x: torch.Tensor, sigma: torch.Tensor, conditions: Conditions, guidance: float
    ) -> torch.Tensor:
        """The transformer's output, with guidance as an input. float32, packed as x."""
        side = 2 * self.pipe.vae_scale_factor
        ids = self.positions(self.shape.height // side, self.shape.width // side)
        return self.predict(x, ids, sigma, conditions, guidance)

    def positions(self, height: int, width: int) -> torch.Tensor:
        """The ids of a picture's tokens, by row and column, [height * width, 3]."""
        return FluxPipeline._prepare_latent_image_ids(1, height, width, self.device, self.dtype)

    def predict(
        self, x: torch.Tensor, ids: torch.Tensor, sigma: torch.Tensor, conditions: Conditions, guidance: float
    ) -> torch.Tensor:
        """The transformer's output for tokens x [B, N, 4C] with the ids [N, 3]. float32 [B, N, 4C]."""
        assert conditions.pooled is not None
        v = self.run_transformer(
            x,
            timestep=sigma,
            guidance=self.guidance_input(len(x), guidance),
            pooled_projections=conditions.pooled.to(self.dtype),
            encoder_hidden_states=conditions.embeds.to(self.dtype),
            txt_ids=torch.zeros(conditions.embeds.shape[1], 3, device=self.device, dtype=self.dtype),
            img_ids=ids,
        )
        return v.float()

    def set_timesteps(self, scheduler: Any, steps: int) -> None:
        """As FluxPipeline does: evenly spaced sigmas down to 1/N, shifted by the number of tokens."""
        c = scheduler.config
        mu = calculate_shift(
            self.latent_shape[0], c.get("base_image_seq_len", 256), c.get("max_image_seq_len", 4096),
            c.get("base_shift", 0.5), c.get("max_shift", 1.15),
        )  # fmt: skip
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)

    def unscale(self, latents: torch.Tensor) -> torch.Tensor:
        """Unpacked latents of the autoencoder, [B, C, h, w]."""
        scale = self.pipe.vae_scale_factor
        unpacked = FluxPipeline._unpack_latents(latents, self.shape.height, self.shape.width, scale)
        return super().unscale(unpacked)

    def scale(self, latents: torch.Tensor) -> torch.Tensor:
        """Packed latents of the transformer, [B, h/2 * w/2, 4C]."""
        scaled = super().scale(latents)
        return FluxPipeline._pack_latents(scaled, *scaled.shape)
