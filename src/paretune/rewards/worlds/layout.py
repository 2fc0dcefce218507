"""Two more things that people want of a picture of this world: that it can be made out, and that it is large.

Both look only at what the prompt asks for and the detector (or reader) finds, so that a blank picture, or one
full of something else, scores 0. A fourth and a fifth reward, or judges on which nothing trains.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from paretune.types import Prompt

from ..checks import Checked
from ..records import check_geneval, geneval_record
from .detector import Detection, detect_batch
from .geneval import KNOWN
from .ocr import edit_score, wanted_word
from .reader import load_reader

FULL_CONTRAST = 7.0  # WCAG 2.1's ratio for enhanced contrast
FULL_AREA = 100.0  # pixels of a large shape with a cell of its own
LETTER_ROWS, LETTER_COLUMNS = 9, 6


class ContrastReward(Checked):
    """Mean over the asked things of their WCAG contrast with their ground, log scale, 1 at 7:1 and more.

    A group of shapes counts by the share of it that is found. A sign counts by the letters of its word
    that can be read (edit score); its contrast is that of the lightest with the darkest pixels of its rows.
    """

    name = "contrast"
    range = (0.0, 1.0)
    higher_is_better = True

    def __init__(self) -> None:
        self._reader = load_reader()

    @staticmethod
    def check(prompts: Sequence[Prompt]) -> None:
        """Refuse a prompt whose record asks for neither shapes nor a word."""
        for prompt in prompts:
            record = geneval_record(prompt.metadata)
            if record["include"]:
                check_geneval("contrast", [prompt], KNOWN)
            if "text" in record or not record["include"]:
                wanted_word(prompt, "contrast, where no shapes are asked for,")

    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: [B, 3, 32, 32] in [0, 1]; prompts with GenEval records. Returns float32 [B]."""
        pictures = samples.detach().to("cpu", torch.float32)
        light = luminance(pictures)
        words, found = self._reader.read(pictures), detect_batch(pictures)
        return torch.tensor([
            _mean([
                *(_group_contrast(e, things, own) for e in geneval_record(prompt.metadata)["include"]),
                *(_sign_contrast(own, len(text)) * edit_score(read, text.lower())
                  for text in [prompt.metadata.get("text")] if text),
            ])
            for prompt, own, read, things in zip(prompts, light, words, found, strict=True)
        ])  # fmt: skip


class ProminenceReward(Checked):
    """How large the asked shapes are drawn: the mean over groups of found share x area / 100 pixels."""

    name = "prominence"
    range = (0.0, 1.0)
    higher_is_better = True

    @staticmethod
    def check(prompts: Sequence[Prompt]) -> None:
        """Refuse a prompt whose record asks for no shapes."""
        check_geneval("prominence", prompts, KNOWN)

    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: [B, 3, 32, 32] in [0, 1]; prompts with GenEval records. Returns float32 [B]."""
        return torch.tensor([
            _mean([_group_size(entry, things) for entry in geneval_record(prompt.metadata)["include"]])
            for prompt, things in zip(prompts, detect_batch(samples), strict=True)
        ])  # fmt: skip


def luminance(pictures: torch.Tensor) -> torch.Tensor:
    """Relative luminance of sRGB pictures [B, 3, H, W] in [0, 1] (WCAG 2.1). [B, H, W] in [0, 1]."""
    x = pictures.clamp(0, 1)
    linear = torch.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    return torch.einsum("bchw,c->bhw", linear, torch.tensor([0.2126, 0.7152, 0.0722]))


def contrast(first: float, second: float) -> float:
    """0 for equal luminances, 1 for a ratio of 7:1 or more."""
    ratio = (max(first, second) + 0.05) / (min(first, second) + 0.05)
    return min(1.0, math.log(ratio) / math.log(FULL_CONTRAST))


def _matching(entry: Mapping[str, Any], found: Sequence[Detection]) -> list[Detection]:
    """The asked shapes that are there, no more than were asked for, the largest first."""
    same = [d for d in found if d.shape == entry["class"] and d.color == entry.get("color", d.color)]
    return sorted(same, key=lambda d: -d.area)[: entry["count"]]


def _group_contrast(
    entry: Mapping[str, Any], found: Sequence[Detection], light: torch.Tensor
) -> float:
    ground = float(light.median())
    values = [contrast(float(light[round(d.y), round(d.x)]), ground) for d in _matching(entry, found)]
    return sum(values) / entry["count"]


def _sign_contrast(light: torch.Tensor, letters: int) -> float:
    """Contrast where a word of so many letters lies: the rows that vary most from column to column."""
    bands = light[:, 1 : 1 + LETTER_COLUMNS * letters].unfold(0, LETTER_ROWS, 1).transpose(1, 2)
    spread = bands.std(2).mean(1)
    ties = (spread > spread.max() - 1e-6).nonzero()[:, 0]  # the word is less tall than a band
    band = bands[ties[len(ties) // 2]]  # rounding, which differs between machines, must not choose
    low, high = torch.quantile(band, torch.tensor([0.05, 0.95])).tolist()
    return contrast(low, high)


def _group_size(entry: Mapping[str, Any], found: Sequence[Detection]) -> float:
    return sum(min(1.0, d.area / FULL_AREA) for d in _matching(entry, found)) / entry["count"]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
