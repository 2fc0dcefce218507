"""What the policies of all FLUX.2 models share. Latents: [B, 4C, h/2, w/2], normalised.

Three layers of the text encoder side by side are the text, padding included. Positions have four
coordinates.
"""
# pyright: reportPrivateImportUsage=false
# diffusers fills its namespace lazily, so that its public names look private.

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import Flux2Pipeline
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

from ..pipelines import PipelinePolicy
from .family import text_tokens

# As Flow-Factory takes them: attention and feed-forward layers of the dual blocks, and the joint input layer
# of the single blocks. Their joint output layer is another `attn.to_out`, which has no number.
TARGETS = (
    "attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0",
    "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out",
    "ff.linear_in", "ff.linear_out", "ff_context.linear_in", "ff_context.linear_out",
    "attn.to_qkv_mlp_proj",
)  # fmt: skip


class Flux2Shared(PipelinePolicy):
    """A subclass sets the pipeline and the family, and defines `velocity` by `one_pass`."""

    targets: tuple[str, ...] = TARGETS
    encoders = ("text_encoder",)

    def embed(self, texts: list[str]) -> dict[str, torch.Tensor]:
        """Three layers of the text encoder side by side, [P, T, 3D]."""
        embeds, _ = self.pipe.encode_prompt(
            texts, device=self.device, max_sequence_length=text_tokens(self.config)
        )
        return {"embeds": embeds}

    def text_widths(self) -> dict[str, int]:
        """See `PipelinePolicy.text_widths`."""
        return {"embeds": self.transformer.config.joint_attention_dim}

    def one_pass(
        self, x: torch.Tensor, sigma: torch.Tensor, embeds: torch.Tensor, guidance: torch.Tensor | None
    ) -> torch.Tensor:
        """The transformer's output for one kind of text. float32 [B, C, h, w]."""
        v = self.run_transformer(
            x.flatten(2).transpose(1, 2),
            timestep=sigma,
            guidance=guidance,
            encoder_hidden_states=embeds.to(self.dtype),
            # The ids of one sample serve the whole batch.
            txt_ids=Flux2Pipeline._prepare_text_ids(embeds[:1]).to(self.device),
            img_ids=Flux2Pipeline._prepare_latent_ids(x[:1]).to(self.device),
        )
        return v.float().transpose(1, 2).reshape(x.shape)

    def set_timesteps(self, scheduler: Any, steps: int) -> None:
        """As Flux2Pipeline does: evenly spaced sigmas down to 1/N, shifted by the tokens and the steps."""
        _, height, width = self.latent_shape
        mu = compute_empirical_mu(image_seq_len=height * width, num_steps=steps)
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)

    def unscale(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents of the autoencoder, [B, C, h, w]: its batch norm inverted, and patches taken apart."""
        mean, std = self._statistics()
        return Flux2Pipeline._unpatchify_latents(latents * std + mean)

    def scale(self, latents: torch.Tensor) -> torch.Tensor:
        """The inverse of `unscale`: normalised patches, [B, 4C, h/2, w/2]."""
        mean, std = self._statistics()
        return (Flux2Pipeline._patchify_latents(latents) - mean) / std

    def _statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean and the standard deviation of the patches' channels, [1, 4C, 1, 1] each."""
        norm = self.vae.bn
        std = torch.sqrt(norm.running_var + self.vae.config.batch_norm_eps)
        return norm.running_mean.view(1, -1, 1, 1), std.view(1, -1, 1, 1)
