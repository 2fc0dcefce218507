"""Pipelines of the true size with random weights: what a hub model needs can be measured without it.

The text encoders are left out: they are gone when training begins. Configurations are those that the models
are published with.
"""
# pyright: reportPrivateImportUsage=false
# diffusers fills its namespace lazily, so that its public names look private.

from __future__ import annotations

from typing import Any

import torch

from ..config import ModelConfig
from .flow import Conditions
from .pipelines import PipelinePolicy

FLUX_VAE = {
    "block_out_channels": (128, 256, 512, 512), "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4, "layers_per_block": 2, "latent_channels": 16,
    "scaling_factor": 0.3611, "shift_factor": 0.1159, "use_quant_conv": False, "use_post_quant_conv": False,
}  # fmt: skip


def random_policy(config: ModelConfig, device: str) -> PipelinePolicy | None:
    """A policy on random weights for a hub model whose size is known here; None for others."""
    family = SIZES.get(config.path)
    return None if family is None else family(config, device)


def random_conditions(policy: PipelinePolicy, count: int) -> Conditions:
    """Conditions of the right shape, of full-length prompts."""
    facts = policy.transformer.config
    width = facts.get("joint_attention_dim") or facts.text_embed_dim
    tokens = policy.options.max_sequence_length or (256 if "text_embed_dim" in facts else 512)
    embeds = torch.randn(count, tokens, width, device=policy.device, dtype=policy.dtype)
    pooled = torch.randn(count, facts.pooled_projection_dim, device=policy.device, dtype=policy.dtype)
    return Conditions(embeds, pooled, mask=torch.ones(count, tokens, device=policy.device))


def _flux(config: ModelConfig, device: str) -> PipelinePolicy:
    from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel

    from .flux import FluxPolicy

    parts = {
        "transformer": _random(lambda: FluxTransformer2DModel(guidance_embeds=True), config, device),
        "vae": AutoencoderKL(**FLUX_VAE),  # type: ignore[arg-type]
    }
    return _policy(FluxPolicy, FluxPipeline, parts, config, device)


def _hunyuan(config: ModelConfig, device: str) -> PipelinePolicy:
    from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoPipeline, HunyuanVideoTransformer3DModel

    from .hunyuan_video import HunyuanVideoPolicy

    parts = {
        "transformer": _random(HunyuanVideoTransformer3DModel, config, device),
        "vae": AutoencoderKLHunyuanVideo(),
    }
    return _policy(HunyuanVideoPolicy, HunyuanVideoPipeline, parts, config, device)


def _random(build: Any, config: ModelConfig, device: str) -> Any:
    """A model on the device in the recipe's dtype, never larger than that in memory."""
    with torch.device("meta"):
        model = build()
    model = model.to(getattr(torch, config.dtype)).to_empty(device=device)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.02)
    return model


def _policy(
    kind: type[PipelinePolicy], pipeline: Any, parts: dict[str, Any], config: ModelConfig, device: str
) -> PipelinePolicy:
    from diffusers import FlowMatchEulerDiscreteScheduler

    text = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    whole = pipeline(**parts, scheduler=FlowMatchEulerDiscreteScheduler(), **text)

    class Random(kind):
        def load(self) -> Any:
            return whole

    return Random(config, device)


SIZES = {
    "black-forest-labs/FLUX.1-dev": _flux,
    "hunyuanvideo-community/HunyuanVideo": _hunyuan,
}
