"""A small convolutional reader of the sign's word, and where its weights lie.

The sign may be anywhere in height, its letters are in five slots of fixed columns. A letter that
a person could not tell (a blend of two, erased, blurred) has a class of its own, so that an
illegible letter is never read generously. Trained by `tools/worlds/pictures/train_reader.py`.
"""

from __future__ import annotations

import functools
import string
from pathlib import Path

import torch
from torch import nn

from paretune.types import ParetuneError

from ..loaded import load_strictly

SLOTS = 5
BLANK = 26
LETTERS = string.ascii_lowercase


class Reader(nn.Module):
    """Pictures [B, 3, 32, 32] -> logits [B, 5 slots, 26 letters + blank]."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _block(3, 24, 1), _block(24, 40, 2), _block(40, 48, 1), nn.Conv2d(48, 32, 1)
        )
        self.head = nn.Sequential(
            nn.Linear(32 * 16 * 4, 112), nn.ReLU(), nn.Linear(112, BLANK + 1)
        )

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """pictures: float32 [B, 3, 32, 32] in [0, 1]. Returns logits [B, 5, 27]."""
        # A slot is 6 pixels wide and begins at pixel 1 + 6i: 4 cells of the halved map, each 3.
        maps = self.features(pictures * 2 - 1)
        slots = nn.functional.pad(maps, (0, 1)).unfold(3, 4, 3)[:, :, :, :SLOTS]
        return self.head(slots.permute(0, 3, 1, 2, 4).flatten(2))

    @torch.no_grad()
    def read(self, pictures: torch.Tensor) -> list[str]:
        """The words of B pictures, lower case; illegible letters are left out."""
        best = self(pictures).argmax(-1).tolist()
        return ["".join(LETTERS[c] for c in row if c != BLANK) for row in best]


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def weights_path(name: str) -> Path:
    """Where the committed weights of a reward model lie; ParetuneError if they do not."""
    from paretune.worlds import pictures

    path = Path(str(pictures.__file__)).parent / "weights" / f"{name}.safetensors"
    if not path.is_file():
        raise ParetuneError(
            f"the weights of {name} are missing from the installation: reinstall paretune, or run "
            "its training program in tools.worlds.pictures"
        )
    return path


@functools.cache
def load_reader() -> Reader:
    """The trained reader, in evaluation mode, once a process."""
    reader = Reader()
    load_strictly(reader, weights_path("reader"), "the installed reward model reader")
    return reader.eval().requires_grad_(False)
