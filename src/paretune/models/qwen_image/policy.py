"""Qwen-Image as a policy: any QwenImagePipeline folder or hub id. Latents are packed: 2x2 are one token.

Qwen2.5-VL reads a prompt in a template, whose first 34 tokens are dropped. Guidance is a second pass with a
negative prompt; of each token's guided velocity, the length is that of the pass with the prompt.
"""
# pyright: reportPrivateImportUsage=false
# diffusers fills its namespace lazily, so that its public names look private.

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from diffusers import QwenImagePipeline
from diffusers.pipelines.qwenimage.pipeline_qwenimage import calculate_shift

from ..flow import Conditions
from ..pipelines import PipelinePolicy
from .family import FAMILY, text_tokens

# As Flow-GRPO's train_qwenimage.py and verl's run_flowgrpo.sh take them: attention and feed-forward layers of
# both streams.
TARGETS = (
    "attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0",
    "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out",
    "img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2",
)  # fmt: skip


class QwenImagePolicy(PipelinePolicy):
    """See `flow.FlowPolicy`. Latents: [B, h/2 * w/2, 4C]."""

    kind = QwenImagePipeline
    family = FAMILY
    targets: tuple[str, ...] = TARGETS
    encoders = ("text_encoder",)
    two_pass_guidance = True

    def embed(self, texts: list[str]) -> dict[str, torch.Tensor]:
        """Qwen2.5-VL's sequence with its mask; the pipeline gives none where all prompts are equally long."""
        length = text_tokens(self.config)
        # The pipeline reads up to 1024 tokens and then drops those after `length`, which no earlier token
        # sees. Reading no more than that leaves reward tokens within it.
        self.pipe.tokenizer_max_length = length
        embeds, mask = self.pipe.encode_prompt(texts, device=self.device, max_sequence_length=length)
        if mask is None:
            mask = torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device)
        return {"embeds": embeds, "mask": mask}

    def text_widths(self) -> dict[str, int]:
        """See `PipelinePolicy.text_widths`."""
        return {"embeds": self.transformer.config.joint_attention_dim}

    def velocity(
        self, x: torch.Tensor, sigma: torch.Tensor, conditions: Conditions, guidance: float
    ) -> torch.Tensor:
        """The transformer's output, with classifier-free guidance if `guidance` is above 1. float32."""
        cond = self._run(x, sigma, conditions)
        if guidance <= 1:
            return cond
        against = conditions.negatives()
        if len(against.embeds) != len(x):  # one serves all samples
            against = against.select(torch.zeros(len(x), dtype=torch.long))
        uncond = self._run(x, sigma, replace(against, more=conditions.more))
        guided = uncond + guidance * (cond - uncond)
        return guided * (cond.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True))

    def _run(self, x: torch.Tensor, sigma: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        """The transformer's output, float32."""
        return self.one_pass(x, sigma, conditions, [])

    def one_pass(
        self, x: torch.Tensor, sigma: torch.Tensor, conditions: Conditions, others: list[tuple[int, int]]
    ) -> torch.Tensor:
        """The transformer's output without the text positions that no prompt of the batch has. float32.

        others: height and width, in tokens, of the pictures whose latents follow those of the sample in x.
        """
        assert conditions.mask is not None
        longest = int(conditions.mask.sum(1).max())
        mask = conditions.mask[:, :longest].bool()
        side = 2 * self.pipe.vae_scale_factor
        grids = [(self.shape.height // side, self.shape.width // side), *others]
        return self.run_transformer(
            x,
            timestep=sigma,
            encoder_hidden_states=conditions.embeds[:, :longest].to(self.dtype),
            encoder_hidden_states_mask=None if mask.all() else mask,
            img_shapes=[[(1, *grid) for grid in grids]] * len(x),
        ).float()

    def set_timesteps(self, scheduler: Any, steps: int) -> None:
        """As QwenImagePipeline does: evenly spaced sigmas down to 1/N, shifted by the number of tokens."""
        c = scheduler.config
        mu = calculate_shift(
            self.latent_shape[0], c.get("base_image_seq_len", 256), c.get("max_image_seq_len", 4096),
            c.get("base_shift", 0.5), c.get("max_shift", 1.15),
        )  # fmt: skip
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)

    def _moments(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean and the standard deviation of the autoencoder's latents, for each channel."""
        both = self.vae.config.latents_mean, self.vae.config.latents_std
        mean, std = (torch.tensor(values).view(-1, 1, 1, 1).to(latents) for values in both)
        return mean, std

    def unscale(self, latents: torch.Tensor) -> torch.Tensor:
        """Unpacked latents of the autoencoder, [B, C, 1, h, w]: a clip of one frame."""
        sizes = self.shape.height, self.shape.width, self.pipe.vae_scale_factor
        unpacked = QwenImagePipeline._unpack_latents(latents, *sizes)
        mean, std = self._moments(unpacked)
        return unpacked * std + mean

    def scale(self, latents: torch.Tensor) -> torch.Tensor:
        """Packed latents of the transformer, [B, h/2 * w/2, 4C]."""
        mean, std = self._moments(latents)
        scaled = ((latents - mean) / std).squeeze(2)
        return QwenImagePipeline._pack_latents(scaled, *scaled.shape)

    def decode(self, latents: torch.Tensor, batch: int = 8) -> torch.Tensor:
        """Pictures float32 [B, 3, H, W] in [0, 1]."""
        return super().decode(latents, batch)[:, :, 0]

    def encode_media(self, pixels: torch.Tensor, batch: int = 8) -> torch.Tensor:
        """See `PipelinePolicy.encode_media`."""
        return super().encode_media(pixels.unsqueeze(2), batch)
