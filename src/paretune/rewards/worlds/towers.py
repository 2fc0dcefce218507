"""Small image-text networks, and the words that they know. Shapes: B pictures, T words, C classes.

They stand in for the big ones of this field: PickScore (Kirstain et al. 2023, arXiv 2305.01569), an
image tower and a text tower that meet in a score, and VQAScore's question to a vision-language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ..loaded import load_strictly
from .reader import weights_path

MAX_WORDS = 12
SHAPES = ("circle", "square", "triangle", "cross")
COLORS = ("red", "green", "blue", "yellow", "purple", "orange")
# Word 0 is the gap after a caption. A word that is not here (a sign's, an ending) is left out.
VOCABULARY = (
    "", "red", "green", "blue", "yellow", "purple", "orange", "circle", "square", "triangle",
    "cross", "circles", "squares", "triangles", "crosses", "a", "an", "one", "two", "three", "four",
    "and", "left", "right", "of", "above", "below", "sign", "saying",
)
# The things that a picture may show, and how many of one: COUNTS numbers from 0.
CLASSES = (*((s, c) for s in SHAPES for c in COLORS), ("sign", ""))
COUNTS = 5
_INDEX = {word: i for i, word in enumerate(VOCABULARY) if word}


def encode_words(captions: Sequence[str]) -> torch.Tensor:
    """Word indices, int64 [B, 12]; unknown words are left out, the rest is cut at 12."""
    rows = torch.zeros(len(captions), MAX_WORDS, dtype=torch.int64)
    for row, caption in zip(rows, captions, strict=True):
        known = [_INDEX[w] for w in caption.lower().split() if w in _INDEX][:MAX_WORDS]
        row[: len(known)] = torch.tensor(known, dtype=torch.int64)
    return rows


@dataclass(frozen=True)
class Seen:
    """What a picture shows. evidence: [B, C, 8, 8], how much of each class lies in each 4x4-pixel cell.
    counts: [B, C], its sum. places: [B, C, 2], its mean (x, y) in [-1, 1]. features: [B, F], the rest."""

    evidence: torch.Tensor
    counts: torch.Tensor
    places: torch.Tensor
    features: torch.Tensor


@dataclass(frozen=True)
class Asked:
    """What a caption asks for. counts: logits [B, C, 5] of 0 to 4. subject, object: logits [B, C] of which
    class its relation compares with which. direction: [B, 2], where the subject should lie; 0 for none."""

    counts: torch.Tensor
    subject: torch.Tensor
    object: torch.Tensor
    direction: torch.Tensor


class FactMatcher(nn.Module):
    """A score for each picture with its caption: the facts seen against the facts asked, plus its look.

    One tower counts and places every class of thing in the picture (evidence a cell, summed), the other says
    what the caption asks for; a small head weighs what disagrees. Both are first taught to name facts
    (`tools/worlds/pictures/facts.py`), as PickScore starts from CLIP's towers. trunk: "deep" or "wide", two
    architectures of the picture's layers, for a reward and its independent judge.
    pictures: [B, 3, 32, 32] in [0, 1]; words: int64 [B, 12]. Returns [B].
    """

    def __init__(self, trunk: str) -> None:
        super().__init__()
        layers, width = TRUNKS[trunk]()
        self.trunk = layers
        self.evidence = nn.Conv2d(width, len(CLASSES), 1)
        assert self.evidence.bias is not None
        nn.init.constant_(self.evidence.bias, -6.0)  # at first nothing is seen anywhere
        self.features = nn.Sequential(nn.Linear(2 * width, 48), nn.ReLU())
        self.text = _TextTower(48, 192, len(CLASSES) * (COUNTS + 2) + 2)
        self.sharpness = nn.Parameter(torch.tensor(1.0))
        self.steepness = nn.Parameter(torch.tensor(1.5))
        self.match = nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 1))
        self.look = nn.Sequential(nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 1))
        line = torch.linspace(-1, 1, 8)
        self.register_buffer("grid", torch.stack(torch.meshgrid(line, line, indexing="xy")), persistent=False)

    def see(self, pictures: torch.Tensor) -> Seen:
        """The picture's facts."""
        maps = self.trunk(pictures * 2 - 1)
        evidence = nn.functional.softplus(self.evidence(maps))
        counts = evidence.sum((2, 3))
        places = torch.einsum("bchw,dhw->bcd", evidence, self.grid) / (counts[..., None] + 1e-2)
        pooled = torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1)
        return Seen(evidence, counts, places, self.features(pooled))

    def ask(self, words: torch.Tensor) -> Asked:
        """The caption's facts."""
        n = len(CLASSES)
        counts, subject, object_, direction = self.text(words).split([n * COUNTS, n, n, 2], 1)
        return Asked(counts.view(-1, n, COUNTS), subject, object_, direction)

    def count_logits(self, seen: Seen) -> torch.Tensor:
        """How likely each class is there 0 to 4 times: [B, C, 5]."""
        gaps = seen.counts[..., None] - torch.arange(COUNTS, device=seen.counts.device)
        return -self.sharpness.exp() * gaps.square()

    def related(
        self, seen: Seen, subject: torch.Tensor, object_: torch.Tensor, way: torch.Tensor
    ) -> torch.Tensor:
        """Logit that the subject (weights [B, C]) lies in direction `way` [B, 2] of the object. [B]."""
        gap = torch.einsum("bc,bcd->bd", subject - object_, seen.places)
        return self.steepness.exp() * (gap * way).sum(1)

    def forward(self, pictures: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """The scores, [B]."""
        seen, asked = self.see(pictures), self.ask(words)
        wanted = asked.counts.softmax(-1)
        wrong = 1 - (wanted * self.count_logits(seen).softmax(-1)).sum(-1)
        absent = wanted[..., 0]
        subject, object_ = asked.subject.softmax(-1), asked.object.softmax(-1)
        related = self.related(seen, subject, object_, asked.direction)
        misplaced = asked.direction.norm(dim=1) * nn.functional.softplus(-related)
        facts = torch.stack(
            [(wrong * (1 - absent)).sum(1), (wrong * absent).sum(1), wrong[:, -1], misplaced], 1
        )
        return (self.match(facts) + self.look(seen.features))[:, 0]


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


def _deep() -> tuple[nn.Sequential, int]:
    """Plain convolutions, halving the picture twice."""
    return nn.Sequential(
        _conv(3, 24, 1), _conv(24, 48, 2), _conv(48, 48, 1), _conv(48, 80, 2), _conv(80, 80, 1)
    ), 80  # fmt: skip


def _wide() -> tuple[nn.Sequential, int]:
    """Overlapping patches of 8x8 pixels, then residual blocks."""
    stem = nn.Sequential(nn.Conv2d(3, 96, 8, 4, 2, bias=False), nn.BatchNorm2d(96), nn.ReLU())
    return nn.Sequential(stem, *(_Residual(96) for _ in range(3))), 96


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(_conv(width, width, 1), _conv(width, width, 1))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps + self.layers(maps)


TRUNKS = {"deep": _deep, "wide": _wide}


def load_tower(network: nn.Module, name: str) -> float:
    """Load the committed weights into a network, freeze it, and return their `zero`: the score that
    stands for 1/2 (see `preference`)."""
    constants = load_strictly(network, weights_path(name), f"the installed reward model {name}")
    network.eval().requires_grad_(False)
    return float(constants.get("zero", torch.zeros(())))


@torch.no_grad()
def probabilities(
    network: nn.Module, zero: float, samples: torch.Tensor, captions: Sequence[str]
) -> torch.Tensor:
    """sigmoid(score - zero), float32 [B] in (0, 1)."""
    pictures = samples.detach().to("cpu", torch.float32)
    return torch.sigmoid(network(pictures, encode_words(captions)) - zero)
