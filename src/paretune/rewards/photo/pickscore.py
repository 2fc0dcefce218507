"""PickScore (Kirstain et al. 2023, arXiv 2305.01569): how people like a picture for its prompt.

A CLIP fine-tuned on people's choices between pictures. As Flow-GRPO (arXiv 2505.05470) scales it, a
score is exp(logit scale) * cos(picture, prompt) / 26: about 0.75 to 0.9 for good pictures. Pictures
are prepared in torch as CLIP's processor does it with PIL, bytes aside.

Shapes: B pictures of H x W, N texts, D features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from paretune.foreign.loading import load
from paretune.types import Prompt

from ..hub import frozen, normalised, processor_settings

SCALE = 26.0


class PickScore:
    """PickScore's logit over 26, of photographs of any size.

    model: a CLIP; processor: where its tokenizer and its picture's mean and deviation lie. Both are
    hub ids or folders. device: "cuda" where there is one, unless told.
    """

    name = "pickscore"
    range = (0.0, 1.0)
    higher_is_better = True

    def __init__(
        self,
        model: str = "yuvalkirstain/PickScore_v1",
        processor: str = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        device: str | None = None,
    ) -> None:
        self._clip = Clip(model, processor, device)

    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: [B, 3, H, W] in [0, 1]; any prompts, cut at 77 tokens. Returns float32 [B]."""
        pictures = self._clip.pictures(samples)
        texts = self._clip.texts([prompt.text for prompt in prompts])
        return self._clip.scale * (pictures * texts).sum(-1).cpu() / SCALE


class Clip:
    """A CLIP of transformers in float32, with its tokenizer and its own way to prepare pictures."""

    def __init__(self, model: str, processor: str, device: str | None = None) -> None:
        from transformers import AutoTokenizer, CLIPModel

        self._network = frozen(CLIPModel, model, device)
        self.device: torch.device = self._network.device
        self._tokenizer = load(AutoTokenizer, processor, f"reward model {processor}")
        settings = processor_settings(processor)
        self._mean, self._std = settings["image_mean"], settings["image_std"]
        self._size: int = self._network.config.vision_config.image_size
        self._length: int = self._network.config.text_config.max_position_embeddings
        self.scale = float(self._network.logit_scale.exp())

    @torch.no_grad()
    def pictures(self, pictures: torch.Tensor) -> torch.Tensor:
        """Unit features [B, D] of pictures [B, 3, H, W] in [0, 1]."""
        pixels = squared(pictures.detach().to(self.device, torch.float32), self._size)
        pooled = self._network.vision_model(normalised(pixels, self._mean, self._std)).pooler_output
        return functional.normalize(self._network.visual_projection(pooled), dim=-1)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit features [N, D] of texts, each cut at the model's length."""
        tokens = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=self._length, return_tensors="pt"
        ).to(self.device)
        pooled = self._network.text_model(tokens.input_ids, tokens.attention_mask).pooler_output
        return functional.normalize(self._network.text_projection(pooled), dim=-1)


def squared(pictures: torch.Tensor, size: int) -> torch.Tensor:
    """[B, 3, H, W] -> [B, 3, size, size]: the shorter side to `size` (bicubic), then the middle."""
    # Of a thin strip, only what is near its middle: enlarging all of it could take gigabytes.
    most = 4 * min(pictures.shape[-2:])
    cuts = [max(0, side - most) // 2 for side in pictures.shape[-2:]]
    pictures = pictures[..., cuts[0] :, cuts[1] :][..., :most, :most]
    height, width = pictures.shape[-2:]
    shape = [max(size, side * size // min(height, width)) for side in (height, width)]
    resized = functional.interpolate(pictures, shape, mode="bicubic", antialias=True).clamp(0, 1)
    top, left = ((side - size) // 2 for side in shape)
    return resized[..., top : top + size, left : left + size]
