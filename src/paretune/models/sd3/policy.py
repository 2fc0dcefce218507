"""Stable Diffusion 3 as a policy: any StableDiffusion3Pipeline folder or hub id, with or without T5."""
# pyright: reportPrivateImportUsage=false
# diffusers fills its namespace lazily, so that its public names look private.

from __future__ import annotations

from typing import Any

import torch
from diffusers import StableDiffusion3Pipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift

from ...config import ModelConfig
from ...types import ParetuneError
from ..flow import Conditions
from ..options import read_options
from ..pipelines import PipelinePolicy, load
from .family import FAMILY, SD3Options, t5_tokens

TARGETS = (
    "attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0",
    "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out",
)  # fmt: skip


def load_pipeline(config: ModelConfig) -> StableDiffusion3Pipeline:
    """Load the pipeline in `config.dtype`, with its VAE in float32, with or without T5."""
    load_t5 = read_options(SD3Options, config).load_t5
    parts = {} if load_t5 else {"text_encoder_3": None, "tokenizer_3": None}
    pipe = load(StableDiffusion3Pipeline, config, parts)
    if load_t5 and pipe.text_encoder_3 is None:
        raise ParetuneError(f"model.options.load_t5: {config.path} has no T5 encoder; set it to false")
    return pipe


class SD3Policy(PipelinePolicy):
    """See `flow.FlowPolicy`. `free_text` releases the text encoders after `encode`."""

    kind = StableDiffusion3Pipeline
    family = FAMILY
    targets: tuple[str, ...] = TARGETS
    lazy_text = False
    two_pass_guidance = True

    def load(self) -> StableDiffusion3Pipeline:
        """See `load_pipeline`."""
        return load_pipeline(self.config)

    @property
    def t5_tokens(self) -> int:
        """Without T5 the pipeline would append this many zero tokens, which changes the picture."""
        return t5_tokens(self.config)

    def load_text(self) -> None:
        """Do nothing, because the text encoders are loaded with the pipeline."""

    def embed(self, texts: list[str]) -> dict[str, torch.Tensor]:
        """The encoding by both CLIP towers, and by T5 if it is loaded."""
        out = self.pipe.encode_prompt(
            texts, texts, texts, device=self.device, do_classifier_free_guidance=False,
            max_sequence_length=self.t5_tokens,
        )  # fmt: skip
        embeds, pooled = out[0], out[2]
        assert embeds is not None
        assert pooled is not None
        return {"embeds": embeds, "pooled": pooled}

    def velocity(
        self, x: torch.Tensor, sigma: torch.Tensor, conditions: Conditions, guidance: float
    ) -> torch.Tensor:
        """The transformer's output, with classifier-free guidance if `guidance` is above 1. float32."""
        embeds, pooled, t = conditions.embeds, conditions.pooled, sigma * 1000
        assert pooled is not None
        if guidance > 1:
            n = len(x)
            assert conditions.negative_embeds is not None
            assert conditions.negative_pooled is not None
            embeds = torch.cat([conditions.negative_embeds.expand(n, -1, -1), embeds])
            pooled = torch.cat([conditions.negative_pooled.expand(n, -1), pooled])
            x, t = torch.cat([x, x]), torch.cat([t, t])
        v = self.run_transformer(
            x, timestep=t, encoder_hidden_states=embeds, pooled_projections=pooled
        )
        if guidance > 1:
            uncond, cond = v.chunk(2)
            v = uncond + guidance * (cond - uncond)
        return v.float()

    def set_timesteps(self, scheduler: Any, steps: int) -> None:
        """As the pipeline does, with the shift for the picture's size if the scheduler uses one."""
        extra = {}
        if scheduler.config.get("use_dynamic_shifting"):
            tokens = self.latent_shape[1] * self.latent_shape[2] // self.pipe.patch_size**2
            c = scheduler.config
            extra["mu"] = calculate_shift(
                tokens, c.base_image_seq_len, c.max_image_seq_len, c.base_shift, c.max_shift
            )
        scheduler.set_timesteps(steps, **extra)
