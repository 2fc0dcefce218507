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
from ..shapes import Shape
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
        ratio = self.pipe.config.boundary_ratio
        return None if ratio is None else float(ratio)

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

    def check_size(self) -> Shape:
        """See `PipelinePolicy.check_size`. Moments that do not fit the latents show here, not after a run."""
        shape = super().check_size()
        self.vae.enable_slicing()  # one clip at a time, because it decodes without tiles
        self.unscale(torch.zeros(1, *shape.latents))
        return shape

    def embed(self, texts: list[str]) -> dict[str, torch.Tensor]:
        """UMT5's sequence, cleaned and filled up with zeros by the pipeline."""
        # Of this class for image to video too, whose own copy of this method fails without ftfy installed.
        embeds = WanPipeline._get_t5_prompt_embeds(
            self.pipe, texts, device=self.device, max_sequence_length=text_tokens(self.config)
        )
        return {"embeds": embeds}

    def text_widths(self) -> dict[str, int]:
        """See `PipelinePolicy.text_widths`."""
        return {"embeds": self.transformer.config.text_dim}

    def velocity(
        self, x: torch.Tensor, sigma: torch.Tensor, conditions: Conditions, guidance: float
    ) -> torch.Tensor:
        """The transformer's output, with classifier-free guidance if `guidance` is above 1. float32."""
        inputs = self.inputs(x, sigma * TIMESTEPS, conditions)
        if guidance <= 1:
            return self.run_transformer(**inputs).float()
        assert conditions.negative_embeds is not None
        negative = conditions.negative_embeds.to(self.dtype).expand(len(x), -1, -1)
        against = {**inputs, "encoder_hidden_states": negative}
        twice = {name: torch.cat([against[name], value]) for name, value in inputs.items()}
        uncond, cond = self.run_transformer(**twice).float().chunk(2)
        scale: float | torch.Tensor = guidance
        if self.boundary is not None and self.guidance_2 is not None:
            scale = torch.where(inputs["first"], guidance, self.guidance_2).view(-1, 1, 1, 1, 1)
        return uncond + scale * (cond - uncond)

    def inputs(self, x: torch.Tensor, t: torch.Tensor, conditions: Conditions) -> dict[str, torch.Tensor]:
        """The arguments of the transformer, [B, ..] each. t: the time, [B]."""
        made = {"x": x, "timestep": t, "encoder_hidden_states": conditions.embeds.to(self.dtype)}
        if self.pipe.config.expand_timesteps:  # 2.2's TI2V model has a time for every token
            made["timestep"] = t[:, None].expand(-1, self.shape.tokens)
        if self.boundary is not None:
            made["first"] = t >= self.boundary * TIMESTEPS
        return made

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
