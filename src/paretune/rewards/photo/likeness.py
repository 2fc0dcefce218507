"""How much an edited picture is still like the input picture: the cosine of their features in CLIP.

Flow-GRPO (arXiv 2505.05470) trains FLUX.1-Kontext on it beside GenEval's counts, so that an edit leaves the
rest of a picture as it was.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from paretune.inputs.pictures import KEY, open_picture
from paretune.types import ParetuneError, Prompt

from ..checks import Checked
from .clip import shared_clip


class Likeness(Checked):
    """The cosine of CLIP's features of a sample and of its prompt's input picture.

    model: a CLIP, as a hub id or a folder. device: "cuda" where there is one, unless given. revision: the
    commit of `model`.
    """

    name = "likeness"
    range = (-1.0, 1.0)
    higher_is_better = True

    def __init__(
        self,
        model: str = "openai/clip-vit-large-patch14",
        device: str | None = None,
        revision: str | None = None,
    ) -> None:
        self._clip = shared_clip(model, model, device, revision)

    @staticmethod
    def check(prompts: Sequence[Prompt]) -> None:
        """Raise ParetuneError for a prompt without an input picture."""
        for prompt in prompts:
            if not isinstance(prompt.metadata.get(KEY), str):
                raise ParetuneError(
                    f'likeness compares with an input picture; the record of {prompt.text!r} has no "{KEY}"'
                )

    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: [B, 3, H, W] in [0, 1]; prompts with input pictures of any size. Returns float32 [B]."""
        wanted = [prompt.metadata[KEY] for prompt in prompts]
        known = {path: self._clip.pictures(_pixels(path))[0] for path in dict.fromkeys(wanted)}
        inputs = torch.stack([known[path] for path in wanted])
        return (self._clip.pictures(samples) * inputs).sum(-1).cpu()


def _pixels(path: str) -> torch.Tensor:
    """A picture file as [1, 3, H, W] in [0, 1]."""
    return torch.from_numpy(np.array(open_picture(path))).permute(2, 0, 1).float()[None] / 255
