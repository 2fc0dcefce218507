"""CLIPScore (Hessel et al. 2021, arXiv 2104.08718): 2.5 * max(cos(picture, "A photo depicts" prompt), 0).

The paper's numbers are ViT-B/32's (`model: openai/clip-vit-base-patch32`). Unless told, the network is the
ViT-L/14 that `aesthetic`, `likeness` and `geneval` read too, so that it is loaded and run once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from paretune.types import Prompt

from .clip import shared_clip


class ClipScore:
    """The paper's score, which 2.5 stretches to about 0..1.

    model: a CLIP, as a hub id or a folder; processor: where its tokenizer lies, if elsewhere. weight,
    prefix: the paper's constants. device: "cuda" where there is one, unless given. revision: of `model`.
    """

    name = "clipscore"
    range = (0.0, 2.5)
    higher_is_better = True

    def __init__(
        self,
        model: str = "openai/clip-vit-large-patch14",
        processor: str | None = None,
        weight: float = 2.5,
        prefix: str = "A photo depicts ",
        device: str | None = None,
        revision: str | None = None,
    ) -> None:
        self._clip = shared_clip(model, processor or model, device, revision)
        self._weight, self._prefix = weight, prefix
        self.range = (0.0, weight)

    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: [B, 3, H, W] in [0, 1]; any prompts, cut at 77 tokens. Returns float32 [B]."""
        pictures = self._clip.pictures(samples)
        texts = self._clip.texts([self._prefix + prompt.text for prompt in prompts])
        return self._weight * (pictures * texts).sum(-1).clamp(min=0).cpu()
