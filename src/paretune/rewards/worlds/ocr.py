"""Does the sign say the word? Text rewards as in Flow-GRPO (arXiv 2505.05470).

The score is 1 - min(d, n) / n: d the Levenshtein distance of the word read to the word wanted, n
the length of the wanted word. A prompt's wanted word is its metadata's "text".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from paretune.types import ParetuneError, Prompt

from ..checks import Checked
from .reader import load_reader

# Rows of the picture that hold a sign above the shapes, alone, or below them.
BANDS = ((0, 11), (10, 21), (21, 32))
UPSCALE = 4


class OcrReward(Checked):
    """The edit score of the word that the world's small CNN reads (see `reader`)."""

    name = "ocr"
    range = (0.0, 1.0)
    higher_is_better = True

    def __init__(self) -> None:
        self._reader = load_reader()

    @staticmethod
    def check(prompts: Sequence[Prompt]) -> None:
        """Refuse a prompt whose record has no word."""
        for prompt in prompts:
            wanted_word(prompt)

    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: [B, 3, 32, 32] in [0, 1]; prompts with a "text". Returns float32 [B]."""
        wanted = [wanted_word(prompt) for prompt in prompts]
        return _edit_scores(self.read(samples), wanted)

    def read(self, samples: torch.Tensor) -> list[str]:
        """The words of B pictures, lower case."""
        return self._reader.read(samples.detach().to("cpu", torch.float32))


class RapidOcrJudge(Checked):
    """The same score from PaddleOCR's recogniser: an independent judge, never trained against.

    Reads each band where a sign may be, four times enlarged, and keeps the surest text. Needs
    the extra `paretune[judges]`; raises ParetuneError without it.
    """

    name = "rapidocr"
    range = (0.0, 1.0)
    higher_is_better = True

    def __init__(self) -> None:
        self._recognise = _rapidocr()

    @staticmethod
    def check(prompts: Sequence[Prompt]) -> None:
        """Refuse a prompt whose record has no word."""
        for prompt in prompts:
            wanted_word(prompt)

    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: [B, 3, 32, 32] in [0, 1]; prompts with a "text". Returns float32 [B]."""
        wanted = [wanted_word(prompt) for prompt in prompts]
        return _edit_scores(self.read(samples), wanted)

    def read(self, samples: torch.Tensor) -> list[str]:
        """The words of B pictures, lower case, letters alone."""
        pixels = (samples.detach().to("cpu", torch.float32).clamp(0, 1) * 255).round().byte()
        return [self._read_one(picture.permute(1, 2, 0).numpy()) for picture in pixels]

    def _read_one(self, picture: np.ndarray) -> str:
        texts = [self._recognise(_enlarged(picture[top:bottom])) for top, bottom in BANDS]
        best = max(texts, key=lambda pair: pair[1])[0]
        return "".join(c for c in best.lower() if c.isalpha())


def wanted_word(prompt: Prompt, asking: str = "the OCR reward") -> str:
    """The word that the sign should say, lower case; ParetuneError if the record has none."""
    word = prompt.metadata.get("text")
    if not isinstance(word, str) or not word.strip():
        raise ParetuneError(
            f"{asking} needs a record with \"text\", and the prompt {prompt.text!r} has none"
        )
    return word.lower()


def edit_score(read: str, wanted: str) -> float:
    """1 - min(d, n) / n, d the Levenshtein distance and n the length of the wanted word."""
    return 1 - min(levenshtein(read, wanted), len(wanted)) / len(wanted)


def levenshtein(a: str, b: str) -> int:
    """The least number of insertions, deletions and replacements that turn `a` into `b`."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, start=1):
        previous, row[0] = row[0], i
        for j, right in enumerate(b, start=1):
            cost = min(previous + (left != right), row[j] + 1, row[j - 1] + 1)
            previous, row[j] = row[j], cost
    return row[-1]


def _edit_scores(read: Sequence[str], wanted: Sequence[str]) -> torch.Tensor:
    return torch.tensor([edit_score(r, w) for r, w in zip(read, wanted, strict=True)])


def _rapidocr() -> Callable[[np.ndarray], tuple[str, float]]:
    """A function from a picture, uint8 [H, W, 3], to its text and confidence ("" and 0 if none)."""
    try:
        from rapidocr_onnxruntime import RapidOCR
    except ImportError as error:
        raise ParetuneError(
            "the judge 'rapidocr' needs rapidocr_onnxruntime: pip install 'paretune[judges]'"
        ) from error
    # One thread: a judge must not slow the experts that train beside it.
    engine = RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1)

    def recognise(picture: np.ndarray) -> tuple[str, float]:
        found, _ = engine(picture, use_det=False, use_cls=False, use_rec=True)
        return (str(found[0][0]), float(found[0][1])) if found else ("", 0.0)

    return recognise


def _enlarged(band: np.ndarray) -> np.ndarray:
    """A band [h, 32, 3] four times as large (bicubic), its edge repeated around it."""
    size = (band.shape[0] * UPSCALE, band.shape[1] * UPSCALE)
    pixels = torch.from_numpy(band).permute(2, 0, 1)[None].float()
    large = torch.nn.functional.interpolate(pixels, size=size, mode="bicubic", antialias=False)
    picture = large[0].clamp(0, 255).round().byte().permute(1, 2, 0).numpy()
    return np.pad(picture, ((8, 8), (16, 16), (0, 0)), mode="edge")
