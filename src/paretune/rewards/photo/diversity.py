"""How far the pictures of one prompt lie apart: where it falls, a model draws one picture again and again.

The mean of 1 - cos of a picture's DINOv2 features (Oquab et al. 2023, arXiv 2304.07193) and those of every
other picture of the same prompt in the group. DINO's features tell pictures apart by what they show, and were
never trained on what a prompt says. A picture that is the only one of its prompt has nothing to differ from,
which is 0: give `evaluate.samples` 2 or more where this judges.

As a judge (`judge: diversity`, or in `evaluate.untargeted`) it shows a collapse; as a reward it works against
one. Shapes: B pictures of H x W, D features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from paretune.types import Prompt

from ..hub import frozen, normalised, processor_settings
from ..pinned import pinned
from .clip import squared

BATCH = 32


class Diversity:
    """The mean distance to the group's other pictures, of pictures of any size.

    model: a DINOv2 or another network of transformers whose output has a pooled state, as a hub id or a
    folder. device: "cuda" where there is one, unless given. revision: the commit of `model`.
    """

    name = "diversity"
    range = (0.0, 2.0)
    higher_is_better = True
    groups = True  # samples of one prompt are scored in one call

    def __init__(
        self, model: str = "facebook/dinov2-base", device: str | None = None, revision: str | None = None
    ) -> None:
        from transformers import AutoModel

        commit = pinned(model, revision)
        self._network = frozen(AutoModel, model, device, **commit)
        settings = processor_settings(model, **commit)
        size, crop = settings.get("size") or {}, settings.get("crop_size") or {}
        self._crop: int = crop.get("height") or self._network.config.image_size
        self._size: int = size.get("shortest_edge") or self._crop
        self._mean, self._std = settings["image_mean"], settings["image_std"]

    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: [B, 3, H, W] in [0, 1], the groups in any order. Returns float32 [B]."""
        parts = [self.features(part) for part in samples.split(BATCH)]
        return distances(torch.cat(parts).cpu(), [prompt.text for prompt in prompts])

    @torch.no_grad()
    def features(self, pictures: torch.Tensor) -> torch.Tensor:
        """Unit features [B, D]: the shorter side to the processor's size, then the middle."""
        pixels = squared(pictures.detach().to(self._network.device, torch.float32), self._size)
        edge = (self._size - self._crop) // 2
        pixels = pixels[..., edge : edge + self._crop, edge : edge + self._crop]
        seen = self._network(pixel_values=normalised(pixels, self._mean, self._std)).pooler_output
        return functional.normalize(seen, dim=-1)


def distances(features: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
    """[B] of unit features [B, D]: the mean of 1 - cos to the others with the same text, 0 for one alone."""
    number = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    group = torch.tensor([number[text] for text in texts])
    other = (group[:, None] == group[None]) & ~torch.eye(len(texts), dtype=torch.bool)
    apart = (1 - features @ features.T).clamp(min=0)
    return (apart * other).sum(1) / other.sum(1).clamp(min=1)
