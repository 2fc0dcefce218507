"""HunyuanVideo 1.5 as a policy: any HunyuanVideo15Pipeline folder or hub id. Latents: [B, C, t, h, w].

Qwen2.5-VL encodes the prompt in a chat, and ByT5 the texts that it holds in quotes. Both are sequences with
masks. The pipeline's guider combines a pass with the prompt and one with the empty prompt.

Text to video gives the transformer no picture: zeros beside the latents, and a sequence of zeros whose tokens
are all masked. One such token stands for the pipeline's 729, and the texts are cut to the longest, because
the transformer moves masked tokens to the end and nothing attends to them.
"""
# pyright: reportPrivateImportUsage=false
# diffusers fills its namespace lazily, so that its public names look private.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import HunyuanVideo15Pipeline
from diffusers.guiders import ClassifierFreeGuidance

from ...reward_tokens.files import Token
from ...reward_tokens.pipelines import Scaled
from ...types import ParetuneError
from ..clips import ClipPolicy
from ..flow import Conditions
from ..options import read_options
from ..shapes import Shape
from ..tiles import Axis, clip_axes
from .family import FAMILY, GLYPH_TOKENS, Video15Options, text_tokens

# The attention of clip and text, as SimpleTuner's hunyuanvideo takes them by default. The text refiner's
# attention modules have the same endings, and get adapters too.
TARGETS = (
    "attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0",
    "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out",
)  # fmt: skip


class HunyuanVideo15Policy(ClipPolicy):
    """See `flow.FlowPolicy`."""

    kind = HunyuanVideo15Pipeline
    family = FAMILY
    targets: tuple[str, ...] = TARGETS
    encoders = ("text_encoder", "text_encoder_2")
    two_pass_guidance = True

    def check_size(self) -> Shape:
        """Latents [C, t, h, w]. Raises ParetuneError also for a guider that this policy does not know."""
        guider = self.guider
        if type(guider) is not ClassifierFreeGuidance or (guider._start, guider._stop) != (0.0, 1.0):
            raise ParetuneError(
                f"model.path: the guider of {self.config.path} is a {type(guider).__name__} that does not "
                "guide all steps alike; only a ClassifierFreeGuidance with start 0 and stop 1 can be trained"
            )
        self.vae.use_slicing = True  # its attention takes one clip at a time
        return super().check_size()

    def axes(self) -> Sequence[Axis] | None:
        """See `ClipPolicy.axes`."""
        vae, tiled = self.vae, read_options(Video15Options, self.config).tiles == "blended"
        scales = vae.spatial_compression_ratio, vae.temporal_compression_ratio
        return clip_axes(vae.tile_sample_min_height, *scales) if tiled else None

    @property
    def guider(self) -> Any:
        """The pipeline's; diffusers' default for random weights, which have none."""
        return self.pipe.guider or ClassifierFreeGuidance()

    def apart_from_text(self) -> dict[str, Any]:
        """See `PipelinePolicy.apart_from_text`. The pipeline reads its autoencoder when it is made."""
        return {**super().apart_from_text(), "vae": self.vae}

    # ------------------------------------------------------------ text

    def embed(self, texts: list[str]) -> dict[str, torch.Tensor]:
        """The sequences of Qwen and of ByT5, with their masks."""
        self.pipe.tokenizer_max_length = text_tokens(self.config)
        embeds, mask, glyphs, glyph_mask = self.pipe.encode_prompt(
            texts, device=self.device, batch_size=len(texts)
        )
        return {"embeds": embeds, "mask": mask, "embeds_2": glyphs, "mask_2": glyph_mask}

    def encode(
        self, prompts: Sequence[str], guidance: bool, tokens: Sequence[Scaled] = (), batch: int = 64
    ) -> Conditions:
        """See `PipelinePolicy.encode`. Positions after the longest text are masked, so they are cut off."""
        return super().encode(prompts, guidance, tokens, batch).without_padding()

    def new_token(self, name: str, vectors: int, init: str, generator: torch.Generator) -> Token:
        """A new token for Qwen alone, because ByT5 reads only texts in quotes."""
        token = super().new_token(name, vectors, init, generator)
        return Token(name, {"text_encoder": token.vectors["text_encoder"]})

    def text_widths(self) -> dict[str, int]:
        """See `PipelinePolicy.text_widths`."""
        return {"embeds": self.transformer.config.text_embed_dim}

    def random_more(self, count: int) -> dict[str, torch.Tensor]:
        """See `PipelinePolicy.random_more`."""
        width = self.transformer.config.text_embed_2_dim
        glyphs = torch.randn(count, GLYPH_TOKENS, width, device=self.device, dtype=self.dtype)
        return {"embeds_2": glyphs, "mask_2": torch.ones(count, GLYPH_TOKENS, device=self.device)}

    # ------------------------------------------------------------ velocity

    def velocity(
        self, x: torch.Tensor, sigma: torch.Tensor, conditions: Conditions, guidance: float
    ) -> torch.Tensor:
        """The transformer's output, guided by the pipeline's guider if `guidance` is above 1. float32."""
        cond = self._run(x, sigma, conditions)
        if guidance <= 1:
            return cond.float()
        first = torch.zeros(len(x), dtype=torch.long)  # the negative of all prompts
        uncond = self._run(x, sigma, conditions.negatives().select(first))
        return self.guider.new(guidance_scale=guidance).forward(cond, uncond).pred.float()

    def _run(self, x: torch.Tensor, sigma: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        no_picture = torch.zeros(len(x), x.shape[1] + 1, *x.shape[2:], device=x.device)
        width = self.transformer.config.image_embed_dim
        return self.run_transformer(
            torch.cat([x, no_picture], 1),
            timestep=(sigma * 1000).to(self.dtype),
            encoder_hidden_states=conditions.embeds.to(self.dtype),
            encoder_attention_mask=conditions.mask,
            encoder_hidden_states_2=conditions.more["embeds_2"].to(self.dtype),
            encoder_attention_mask_2=conditions.more["mask_2"],
            image_embeds=torch.zeros(len(x), 1, width, device=x.device, dtype=self.dtype),
        )

    def set_timesteps(self, scheduler: Any, steps: int) -> None:
        """As the pipeline does: evenly spaced sigmas down to 1/N, then the scheduler's shift."""
        shift = read_options(Video15Options, self.config).shift
        if shift is not None:
            scheduler.set_shift(shift)
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.0, steps + 1)[:-1])
