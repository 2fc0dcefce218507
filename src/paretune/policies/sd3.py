"""Stable Diffusion 3 as a policy: any StableDiffusion3Pipeline folder or hub id, with or without T5."""
# pyright: reportPrivateImportUsage=false
# diffusers fills its namespace lazily, so that its public names look private.

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from threading import RLock
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift

from ..config import ModelConfig
from ..types import ParetuneError
from .flow import Conditions, Schedule
from .folders import check_model, quiet, resolve_path
from .token_files import Token
from .tokens import Scaled, encode_with, encoders_of, needs_gradient, new_token, row_scales

TARGETS = (
    "attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0",
    "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out",
)  # fmt: skip


def load_pipeline(config: ModelConfig) -> StableDiffusion3Pipeline:
    """The pipeline with its frozen base in `config.dtype` and its VAE in float32."""
    check_model(config.path)
    parts = {} if config.load_t5 else {"text_encoder_3": None, "tokenizer_3": None}
    quiet()
    try:
        pipe = StableDiffusion3Pipeline.from_pretrained(
            resolve_path(config.path),
            dtype=getattr(torch, config.dtype),
            use_safetensors=True,
            **parts,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ParetuneError(f"model.path: {config.path} cannot be loaded: {reason}") from error
    if config.load_t5 and pipe.text_encoder_3 is None:
        raise ParetuneError(f"model.load_t5: {config.path} has no T5 encoder; set it to false")
    pipe.vae.to(torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


class SD3Policy:
    """See `flow.FlowPolicy`. The text encoders are dropped after `encode` when `free_text` is called."""

    targets: tuple[str, ...] = TARGETS

    def __init__(self, config: ModelConfig, device: str | torch.device = "cpu") -> None:
        self.config = config
        self.device = torch.device(device)
        self.pipe = load_pipeline(config)
        self.pipe.to(self.device)
        self.transformer = self.pipe.transformer.requires_grad_(False).eval()
        self.vae = self.pipe.vae.requires_grad_(False).eval()
        for encoder in encoders_of(self.pipe).values():
            encoder.requires_grad_(False)
        self._text = RLock()  # tokens are put into shared encoders: one prompt batch at a time
        self.dtype = self.transformer.dtype
        self.autocast = False
        if config.gradient_checkpointing:
            self.transformer.enable_gradient_checkpointing()
        scale = self.pipe.vae_scale_factor
        default = self.pipe.default_sample_size * scale
        self.height, self.width = config.height or default, config.width or default
        side = scale * self.pipe.patch_size
        if self.height % side or self.width % side:
            raise ParetuneError(f"model.height and model.width must be multiples of {side}")
        self.latent_shape = (
            self.transformer.config.in_channels, self.height // scale, self.width // scale
        )
        tokens = config.max_sequence_length
        # Without T5 the pipeline would append this many zero tokens, which changes the picture.
        self.t5_tokens = tokens if tokens is not None else (256 if config.load_t5 else 0)

    def encode(
        self,
        prompts: Sequence[str],
        guidance: bool,
        tokens: Sequence[Scaled] = (),
        batch: int = 64,
    ) -> Conditions:
        """Embed prompts through the pipeline's own encoders; the empty prompt once for guidance.

        tokens: put after every prompt, not after the empty one. Gradients flow where one is in training.
        """
        def run(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
            out = self.pipe.encode_prompt(
                texts, texts, texts, device=self.device, do_classifier_free_guidance=False,
                max_sequence_length=self.t5_tokens,
            )
            embeds, pooled = out[0], out[2]
            assert embeds is not None
            assert pooled is not None
            return embeds, pooled

        training = torch.is_grad_enabled() and needs_gradient(tokens)
        with self._text, torch.set_grad_enabled(training):
            starts = range(0, len(prompts), batch)
            texts = [list(prompts[i : i + batch]) for i in starts]
            parts = [encode_with(self.pipe, partial(run, t), tokens) for t in texts]
            embeds, pooled = (torch.cat(t) for t in zip(*parts, strict=True))
            negative = run([""]) if guidance else (None, None)
        return Conditions(embeds, pooled, *negative)

    def new_token(self, name: str, vectors: int, init: str, generator: torch.Generator) -> Token:
        """See `tokens.new_token`."""
        return new_token(self.pipe, name, vectors, init, generator)

    def row_scales(self) -> dict[str, float]:
        """See `tokens.row_scales`."""
        return row_scales(self.pipe)

    def free_text(self) -> None:
        """Let the text encoders go: embeddings are computed once, and T5 alone is 9 GB."""
        for name in ("text_encoder", "text_encoder_2", "text_encoder_3"):
            setattr(self.pipe, name, None)

    def velocity(
        self, x: torch.Tensor, sigma: torch.Tensor, conditions: Conditions, guidance: float
    ) -> torch.Tensor:
        """The transformer's output, with classifier-free guidance when it is above 1. float32."""
        embeds, pooled, t = conditions.embeds, conditions.pooled, sigma * 1000
        x = x.to(self.dtype)
        if guidance > 1:
            n = len(x)
            assert conditions.negative_embeds is not None
            assert conditions.negative_pooled is not None
            embeds = torch.cat([conditions.negative_embeds.expand(n, -1, -1), embeds])
            pooled = torch.cat([conditions.negative_pooled.expand(n, -1), pooled])
            x, t = torch.cat([x, x]), torch.cat([t, t])
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            v = self.transformer(
                hidden_states=x, timestep=t, encoder_hidden_states=embeds,
                pooled_projections=pooled, return_dict=False,
            )[0]  # fmt: skip
        if guidance > 1:
            uncond, cond = v.chunk(2)
            v = uncond + guidance * (cond - uncond)
        return v.float()

    def schedule(self, steps: int) -> Schedule:
        """The sigmas of the pipeline's own scheduler, its shift included."""
        # Any: diffusers' type says a pair, which it gives only with return_unused_kwargs.
        scheduler: Any = FlowMatchEulerDiscreteScheduler.from_config(self.pipe.scheduler.config)
        extra = {}
        if scheduler.config.get("use_dynamic_shifting"):
            tokens = self.latent_shape[1] * self.latent_shape[2] // self.pipe.patch_size**2
            c = scheduler.config
            extra["mu"] = calculate_shift(
                tokens, c.base_image_seq_len, c.max_image_seq_len, c.base_shift, c.max_shift
            )
        scheduler.set_timesteps(steps, **extra)
        return Schedule.from_tensor(scheduler.sigmas)

    def initial_noise(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Standard normal latents, drawn on the CPU. [count, C, h, w]."""
        return torch.randn((count, *self.latent_shape), generator=generator)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor, batch: int = 64) -> torch.Tensor:
        """As the pipeline decodes: unscale, VAE, [-1, 1] -> [0, 1]."""
        config = self.vae.config
        parts = []
        for z in latents.split(batch):
            z = z.to(self.vae.dtype) / config.scaling_factor + config.shift_factor
            parts.append((self.vae.decode(z, return_dict=False)[0] / 2 + 0.5).clamp(0, 1))
        return torch.cat(parts).float().cpu()
