"""LAION's aesthetic predictor: how people rated a picture's look, from 1 to 10, whatever the prompt says.

"improved-aesthetic-predictor" (github christophschuhmann/improved-aesthetic-predictor, sac+logos+ava1-l14-
linearMSE): five linear layers, without anything between them at inference, on the unit features of OpenAI's
ViT-L/14. The authors publish a pickle; the same layers as safetensors lie in RE-N-Y/laion-aesthetic, of which
only they are read: the CLIP is OpenAI's own, which other rewards read too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from safetensors import safe_open
from torch import nn

from paretune.types import ParetuneError, Prompt

from .clip import shared_clip
from .open_clip import read_into, weights_file

WIDTHS = (1024, 128, 64, 16, 1)
PLACES = (0, 2, 4, 6, 7)  # of the linear layers among the authors' layers; dropout is at 1, 3 and 5
PREFIX = "mlp."


class Aesthetic:
    """The predicted rating of pictures of any size.

    head: the layers, as a hub id, a folder with model.safetensors, or such a file; clip: the CLIP. device:
    "cuda" where there is one, unless given. revision: the commit of `head`.
    """

    name = "aesthetic"
    range = (0.0, 10.0)
    higher_is_better = True

    def __init__(
        self,
        head: str = "RE-N-Y/laion-aesthetic",
        clip: str = "openai/clip-vit-large-patch14",
        device: str | None = None,
        revision: str | None = None,
    ) -> None:
        self._clip = shared_clip(clip, clip, device)
        width: int = self._clip.network.config.projection_dim
        self._head = aesthetic_head(head, width, revision).to(self._clip.device)

    @torch.no_grad()
    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: [B, 3, H, W] in [0, 1]; prompts are not read. Returns float32 [B]."""
        return self._head(self._clip.pictures(samples)).squeeze(-1).cpu()


def aesthetic_head(place: str, width: int, revision: str | None = None) -> nn.Module:
    """The authors' layers from features [.., width] to a rating [.., 1], frozen, with their weights.

    Raises ParetuneError for a file that holds no such layers.
    """
    inputs = (width, *WIDTHS[:-1])
    layers = {str(p): nn.Linear(i, o) for p, i, o in zip(PLACES, inputs, WIDTHS, strict=True)}
    head = nn.Sequential()
    for name, layer in layers.items():
        head.add_module(name, layer)
    file = weights_file(place, revision)
    with safe_open(file, framework="pt") as opened:  # a CLIP may lie in it too, which is not read
        names = {n.removeprefix(PREFIX): n for n in list(opened.keys())}
        found = {
            name.removeprefix("layers."): opened.get_tensor(full).float()
            for name, full in names.items() if name.startswith("layers.")
        }  # fmt: skip
    if not found:
        raise ParetuneError(f"aesthetic: {file} holds no layers of LAION's predictor")
    read_into(head, found, f"aesthetic: {file}")
    return head.eval().requires_grad_(False)
