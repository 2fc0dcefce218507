"""The record of FLUX.2-klein, base and distilled: FLUX.2 with Qwen3 as its text encoder."""

from __future__ import annotations

from dataclasses import replace

from ...config import ModelConfig
from ..family import Published
from ..flux2.family import FAMILY as DEV
from ..flux2.family import VAE, text_tokens
from ..text_limits import Limit

# The text that the chat template writes around a prompt.
WRITTEN = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
HUB = "black-forest-labs/FLUX.2-klein"

# transformer/config.json, as in black-forest-labs/flux2 (src/flux2/model.py); the text encoders are Qwen3-4B,
# whose output layer is its embedding table, and Qwen3-8B.
_4B = Published(
    {"transformer": 3.88, "vae": 0.08, "text_encoder": 4.02},
    {"in_channels": 128, "num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24,
     "attention_head_dim": 128, "joint_attention_dim": 7680, "guidance_embeds": False},
    VAE, "AutoencoderKLFlux2",
)  # fmt: skip
_9B = Published(
    {"transformer": 9.08, "vae": 0.08, "text_encoder": 8.19},
    {"in_channels": 128, "num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32,
     "attention_head_dim": 128, "joint_attention_dim": 12288, "guidance_embeds": False},
    VAE, "AutoencoderKLFlux2",
)  # fmt: skip


_DISTILLED = {"is_distilled": True}  # these draw without guidance, whatever its scale
_PUBLISHED = {
    f"{HUB}-base-4B": _4B, f"{HUB}-4B": replace(_4B, index=_DISTILLED),
    f"{HUB}-base-9B": _9B, f"{HUB}-9B": replace(_9B, index=_DISTILLED),
}  # fmt: skip


def _passes(model: ModelConfig) -> int:
    published = _PUBLISHED.get(model.path)
    distilled = published is not None and published.index == _DISTILLED
    return 2 if model.guidance_scale > 1 and not distilled else 1


FAMILY = replace(
    DEV,
    name="flux2_klein",
    policy=f"{__package__}.policy:Flux2KleinPolicy",
    pipelines=("Flux2KleinPipeline",),
    published=_PUBLISHED,
    limits=lambda model: (Limit("tokenizer", "text_encoder", text_tokens(model), WRITTEN),),
    passes=_passes,
)
