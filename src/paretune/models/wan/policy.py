"""Wan 2.1 and 2.2 as a policy: any WanPipeline folder or hub id. Latents: [B, C, t, h, w].

UMT5 encodes a prompt, and zeros fill it up to a fixed length, without a mask. Guidance is a second pass.
Wan 2.2 A14B has two transformers, for high and for low noise, which are trained as one (`pair`).
"""
# pyright: reportPrivateImportUsage=false
# diffusers fills its namespace lazily, so that its public names look private.

from __future__ import annotations

from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline

from ...types import ParetuneError
from ..clips import ClipPolicy
from ..flow import Conditions, Schedule
from ..options import read_options
from ..pair import pair_of
from .family import FAMILY, WanOptions, text_tokens

# As Flow-GRPO's train_wan2_1.py, which adapts all attention. Flow-Factory also takes ffn.net.0.proj and
# ffn.net.2 (its wan2_t2v.py); a recipe adds them by lora.targets.
TARGETS = (
    "attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0",
    "attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0",
)  # fmt: skip
TIMESTEPS = 1000  # of the transformer's time input, which is sigma times it


class WanPolicy(ClipPolicy):
    """See `flow.FlowPolicy`."""

    kind = WanPipeline
    family = FAMILY
    targets: tuple[str, ...] = TARGETS
    encoders = ("text_encoder",)
    two_pass_guidance = True

    @property
    def boundary(self) -> float | None:
        """The sigma below which the second transformer runs; None for a model with one."""
        return self.pipe.config.boundary_ratio

    @property
    def guidance_2(self) -> float | None:
        """The guidance of the second transformer, if a recipe sets one of its own."""
        return read_options(WanOptions, self.config).guidance_scale_2

    def denoiser(self) -> Any:
        """The transformer, or both as one module."""
        if self.boundary is not None:
            return pair_of(self.pipe, self.config.path)
        if self.guidance_2 is not None:
            raise ParetuneError(
                "model.options.guidance_scale_2 is for a model with two transformers, and "
                f"{self.config.path} has one; leave it out"
            )
        return super().denoiser()

    def embed(self, texts: list[str]) -> dict[str, torch.Tensor]:
        """UMT5's sequence, cleaned and filled up with zeros by the pipeline."""
        embeds, _ = self.pipe.encode_prompt(
            texts, do_classifier_free_guidance=False, device=self.device,
            max_sequence_length=text_tokens(self.config),
        )  # fmt: skip
        return {"embeds": embeds}

    def text_widths(self) -> dict[str, int]:
        """See `PipelinePolicy.text_widths`."""
        return {"embeds": self.transformer.config.text_dim}

    def velocity(
        self, x: torch.Tensor, sigma: torch.Tensor, conditions: Conditions, guidance: float
    ) -> torch.Tensor:
        """The transformer's output, with classifier-free guidance if `guidance` is above 1. float32."""
        embeds, t = conditions.embeds, sigma * TIMESTEPS
        first = None if self.boundary is None else t >= self.boundary * TIMESTEPS
        if guidance <= 1:
            return self._run(x, t, embeds, first).float()
        assert conditions.negative_embeds is not None
        negative = conditions.negative_embeds.expand(len(x), -1, -1)
        twice = None if first is None else torch.cat([first, first])
        both = self._run(torch.cat([x, x]), torch.cat([t, t]), torch.cat([negative, embeds]), twice)
        uncond, cond = both.float().chunk(2)
        scale: float | torch.Tensor = guidance
        if first is not None and self.guidance_2 is not None:
            scale = torch.where(first, guidance, self.guidance_2).view(-1, 1, 1, 1, 1)
        return uncond + scale * (cond - uncond)

    def _run(
        self, x: torch.Tensor, t: torch.Tensor, embeds: torch.Tensor, first: torch.Tensor | None
    ) -> torch.Tensor:
        """The transformer's output. first: of two transformers, whether the first runs. [B]."""
        if self.pipe.config.expand_timesteps:  # 2.2's TI2V model has a time for every token
            t = t[:, None].expand(-1, self.shape.tokens)
        which = {} if first is None else {"first": first}
        return self.run_transformer(
            x, timestep=t, encoder_hidden_states=embeds.to(self.dtype), **which
        )

    def schedule(self, steps: int) -> Schedule:
        """Euler's sigmas with the pipeline's shift, which UniPC's configuration calls flow_shift."""
        config, own = self.pipe.scheduler.config, read_options(WanOptions, self.config).shift
        shift = own or config.get("flow_shift") or config.get("shift", 1.0)
        scheduler: Any = FlowMatchEulerDiscreteScheduler.from_config(config, shift=shift)
        scheduler.set_timesteps(steps)
        return Schedule.from_tensor(scheduler.sigmas)

    def _moments(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean and the standard deviation of the autoencoder's latents, for each channel."""
        pair = self.vae.config.latents_mean, self.vae.config.latents_std
        mean, std = (torch.tensor(values).view(-1, 1, 1, 1).to(latents) for values in pair)
        return mean, std

    def unscale(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents of the autoencoder."""
        mean, std = self._moments(latents)
        return latents * std + mean

    def scale(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents of the transformer."""
        mean, std = self._moments(latents)
        return (latents - mean) / std
