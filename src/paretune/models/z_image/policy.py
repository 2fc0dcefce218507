"""Z-Image as a policy: any ZImagePipeline folder or hub id. Latents: [B, C, h, w].

Qwen3 reads the prompt in its chat template, and its last layer but one is the text, without padding. The
transformer counts time from noise (0) to picture (1) and predicts the negative velocity. Guidance is this
pipeline's own: cond + guidance * (cond - uncond), so that 0 turns it off.
"""
# pyright: reportPrivateImportUsage=false
# diffusers fills its namespace lazily, so that its public names look private.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import ZImagePipeline
from diffusers.pipelines.z_image.pipeline_z_image import calculate_shift
from torch.nn.utils.rnn import pad_sequence

from ...reward_tokens.pipelines import Scaled
from ..flow import Conditions
from ..pipelines import PipelinePolicy
from .family import FAMILY, PATCH, text_tokens

# Attention and feed-forward layers of the blocks and both refiners, as Flow-Factory takes them; diffusers'
# train_dreambooth_lora_z_image.py takes the attention alone.
TARGETS = (
    "attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0",
    "feed_forward.w1", "feed_forward.w2", "feed_forward.w3",
)  # fmt: skip


class ZImagePolicy(PipelinePolicy):
    """See `flow.FlowPolicy`."""

    kind = ZImagePipeline
    family = FAMILY
    targets: tuple[str, ...] = TARGETS
    encoders = ("text_encoder",)
    two_pass_guidance = True

    def embed(self, texts: list[str]) -> dict[str, torch.Tensor]:
        """Qwen3's sequence with its mask, filled up to the longest text."""
        rows, _ = self.pipe.encode_prompt(
            list(texts),  # the pipeline writes its template into the list
            device=self.device, do_classifier_free_guidance=False,
            max_sequence_length=text_tokens(self.config),
        )  # fmt: skip
        masks = [torch.ones(len(row), device=self.device) for row in rows]
        return {"embeds": pad_sequence(rows, True), "mask": pad_sequence(masks, True)}

    def encode(
        self, prompts: Sequence[str], guidance: bool, tokens: Sequence[Scaled] = (), batch: int = 64
    ) -> Conditions:
        """See `PipelinePolicy.encode`. The negative prompt is always there: guidance above 0 needs it."""
        return super().encode(prompts, True, tokens, batch)

    def text_widths(self) -> dict[str, int]:
        """See `PipelinePolicy.text_widths`."""
        return {"embeds": self.transformer.config.cap_feat_dim}

    def velocity(
        self, x: torch.Tensor, sigma: torch.Tensor, conditions: Conditions, guidance: float
    ) -> torch.Tensor:
        """The velocity, with classifier-free guidance if `guidance` is above 0. float32 [B, C, h, w]."""
        texts = _rows(conditions.embeds, conditions.mask, self.dtype)
        if guidance > 0:
            assert conditions.negative_embeds is not None
            texts += _rows(conditions.negative_embeds, conditions.negative_mask, self.dtype) * len(x)
            x, sigma = torch.cat([x, x]), torch.cat([sigma, sigma])
        # The transformer takes lists, because texts differ in length, and pictures as clips of one frame.
        pictures = list(x.to(self.dtype).unsqueeze(2).unbind(0))
        v = -torch.stack(self.call_transformer(pictures, 1 - sigma, texts)).squeeze(2).float()
        if guidance > 0:
            cond, uncond = v.chunk(2)
            v = cond + guidance * (cond - uncond)
        return v

    def set_timesteps(self, scheduler: Any, steps: int) -> None:
        """As ZImagePipeline does: evenly spaced sigmas down to 1/N, then the scheduler's shift."""
        c, (_, height, width) = scheduler.config, self.latent_shape
        mu = calculate_shift(
            (height // PATCH) * (width // PATCH), c.get("base_image_seq_len", 256),
            c.get("max_image_seq_len", 4096), c.get("base_shift", 0.5), c.get("max_shift", 1.15),
        )  # fmt: skip
        scheduler.set_timesteps(sigmas=torch.linspace(1.0, 1 / steps, steps).tolist(), mu=mu)


def _rows(embeds: torch.Tensor, mask: torch.Tensor | None, dtype: torch.dtype) -> list[torch.Tensor]:
    """The texts without their padding, each [T_i, D]."""
    assert mask is not None
    lengths = mask.sum(1).int().tolist()
    return [row[:length] for row, length in zip(embeds.to(dtype), lengths, strict=True)]
