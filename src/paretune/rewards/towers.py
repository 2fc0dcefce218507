"""Small image-text networks, and the words that they know. Shapes: B pictures, T words, D
features.

`TwoTower` sees the picture and the caption apart and compares their features, as CLIP and
PickScore (Kirstain et al. 2023, arXiv 2305.01569) do. `Fused` lets the caption steer the
picture's layers (FiLM, Perez et al. 2018, arXiv 1709.07871): another architecture, for
independent judges.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from safetensors.torch import load_file
from torch import nn

from .reader import weights_path

MAX_WORDS = 12
# Word 0 is the gap after a caption. A word that is not here (a sign's, an ending) is left out.
VOCABULARY = (
    "", "red", "green", "blue", "yellow", "purple", "orange", "circle", "square", "triangle",
    "cross", "circles", "squares", "triangles", "crosses", "a", "an", "one", "two", "three", "four",
    "and", "left", "right", "of", "above", "below", "sign", "saying",
)
_INDEX = {word: i for i, word in enumerate(VOCABULARY) if word}


def encode_words(captions: Sequence[str]) -> torch.Tensor:
    """Word indices, int64 [B, 12]; unknown words are left out, the rest is cut at 12."""
    rows = torch.zeros(len(captions), MAX_WORDS, dtype=torch.int64)
    for row, caption in zip(rows, captions, strict=True):
        known = [_INDEX[w] for w in caption.lower().split() if w in _INDEX][:MAX_WORDS]
        row[: len(known)] = torch.tensor(known, dtype=torch.int64)
    return rows


class TwoTower(nn.Module):
    """A score for each picture with its caption: scale * cosine of the towers, plus its quality.

    pictures: [B, 3, 32, 32] in [0, 1]; words: int64 [B, 12]. Returns [B].
    """

    def __init__(self, width: int = 24, features: int = 96) -> None:
        super().__init__()
        self.image = nn.Sequential(
            _conv(3, width, 1), _conv(width, 2 * width, 2), _conv(2 * width, 3 * width, 2),
            _conv(3 * width, 3 * width, 1), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
            nn.Linear(48 * width, 192), nn.ReLU(),
        )  # fmt: skip
        self.image_features = nn.Linear(192, features)
        self.quality = nn.Linear(192, 1)
        self.text = _TextTower(64, 192, features)
        self.log_scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, pictures: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """One score [B], without bounds, a picture [B, 3, 32, 32] with its caption's words [B, 12]."""
        seen = self.image(pictures * 2 - 1)
        image = nn.functional.normalize(self.image_features(seen), dim=-1)
        text = nn.functional.normalize(self.text(words), dim=-1)
        return self.log_scale.exp() * (image * text).sum(-1) + self.quality(seen)[:, 0]


class Fused(nn.Module):
    """A score for each picture with its caption, by a convolutional net that the caption steers.

    pictures: [B, 3, 32, 32] in [0, 1]; words: int64 [B, 12]. Returns [B].
    """

    def __init__(self, width: int = 24, blocks: int = 3) -> None:
        super().__init__()
        self.text = _TextTower(48, 128, 128)
        self.stem = nn.Sequential(_conv(3, width, 1), _conv(width, 2 * width, 2))
        self.place = nn.Parameter(torch.randn(1, 2 * width, 16, 16) * 0.1)
        self.steer = nn.ModuleList(nn.Linear(128, 4 * width) for _ in range(blocks))
        self.blocks = nn.ModuleList(
            _conv(2 * width, 2 * width, 2 if i == 1 else 1) for i in range(blocks)
        )
        self.head = nn.Sequential(nn.Linear(4 * width, 128), nn.ReLU(), nn.Linear(128, 1))

    def forward(self, pictures: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """One score [B], without bounds, a picture [B, 3, 32, 32] with its caption's words [B, 12]."""
        told = self.text(words)
        maps = self.stem(pictures * 2 - 1) + self.place
        for steer, block in zip(self.steer, self.blocks, strict=True):
            gain, shift = steer(told)[:, :, None, None].chunk(2, 1)
            changed = block(maps * (1 + gain) + shift)
            maps = maps + changed if changed.shape == maps.shape else changed
        pooled = torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1)
        return self.head(pooled)[:, 0]


class _TextTower(nn.Module):
    """Words at their places, concatenated, through two layers: captions are short templates."""

    def __init__(self, size: int, hidden: int, features: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(len(VOCABULARY), size, padding_idx=0)
        self.place = nn.Parameter(torch.randn(MAX_WORDS, size) * 0.02)
        self.layers = nn.Sequential(
            nn.Linear(MAX_WORDS * size, hidden), nn.ReLU(), nn.Linear(hidden, features)
        )

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.layers((self.embed(words) + self.place).flatten(1))


def _conv(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def load_tower(network: nn.Module, name: str) -> float:
    """Load the committed weights into a network, freeze it, and return their `zero`: the score that
    stands for 1/2 (see `preference`)."""
    weights = load_file(weights_path(name))
    zero = float(weights.pop("zero", torch.zeros(())))
    network.load_state_dict({
        key: value.float() if value.is_floating_point() else value
        for key, value in weights.items()
    })
    network.eval().requires_grad_(False)
    return zero


@torch.no_grad()
def probabilities(
    network: nn.Module, zero: float, samples: torch.Tensor, captions: Sequence[str]
) -> torch.Tensor:
    """sigmoid(score - zero), float32 [B] in (0, 1)."""
    pictures = samples.detach().to("cpu", torch.float32)
    return torch.sigmoid(network(pictures, encode_words(captions)) - zero)
