"""PickScore (Kirstain et al. 2023, arXiv 2305.01569): how people like a picture for its prompt.

A CLIP fine-tuned on people's choices between pictures. As Flow-GRPO (arXiv 2505.05470) scales it, a
score is exp(logit scale) * cos(picture, prompt) / 26: about 0.75 to 0.9 for good pictures.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from paretune.types import Prompt

from .clip import shared_clip

SCALE = 26.0


class PickScore:
    """PickScore's logit over 26, of photographs of any size.

    model: a CLIP; processor: where its tokenizer and its picture's mean and deviation lie. Both are
    hub ids or folders. device: "cuda" where there is one, unless given. revision: the commit of `model`.
    """

    name = "pickscore"
    range = (0.0, 1.0)
    higher_is_better = True

    def __init__(
        self,
        model: str = "yuvalkirstain/PickScore_v1",
        processor: str = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        device: str | None = None,
        revision: str | None = None,
    ) -> None:
        self._clip = shared_clip(model, processor, device, revision)

    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: [B, 3, H, W] in [0, 1]; any prompts, cut at 77 tokens. Returns float32 [B]."""
        pictures = self._clip.pictures(samples)
        texts = self._clip.texts([prompt.text for prompt in prompts])
        return self._clip.scale * (pictures * texts).sum(-1).cpu() / SCALE
