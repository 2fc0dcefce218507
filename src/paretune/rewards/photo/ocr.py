"""Does a photograph show the wanted text? The OCR reward of Flow-GRPO (arXiv 2505.05470).

All text that is found is joined in reading order; case and spaces do not count. The score is 1 where
the wanted text occurs in it, else 1 - min(d, n) / n: d the Levenshtein distance of the two, n the
length of the wanted text. Flow-GRPO reads with PaddleOCR, we with the same family's networks in ONNX
(PP-OCRv4 by RapidOCR), so scores agree closely but not exactly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
import torch

from paretune.types import ParetuneError, Prompt

from ..checks import Checked
from ..worlds.ocr import edit_score

_QUOTED = re.compile(r'"([^"]*)"|“([^”]*)”')


class MissingTextError(ParetuneError, ValueError):
    """A prompt that neither names nor quotes the text that its picture should show."""


class SceneOcr(Checked):
    """The edit score of all text in a photograph; needs the extra `paretune[judges]`.

    threads: how many the networks take; as many as torch takes, unless told.
    """

    name = "scene_ocr"
    range = (0.0, 1.0)
    higher_is_better = True

    def __init__(self, threads: int | None = None) -> None:
        self._texts = _rapidocr(threads or torch.get_num_threads())

    @staticmethod
    def check(prompts: Sequence[Prompt]) -> None:
        """Refuse a prompt that neither names nor quotes a text."""
        for prompt in prompts:
            wanted_text(prompt)

    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: [B, 3, H, W] in [0, 1]; prompts as in `wanted_text`. Returns float32 [B]."""
        wanted = [wanted_text(prompt) for prompt in prompts]
        read = self.read(samples)
        return torch.tensor([text_score(r, w) for r, w in zip(read, wanted, strict=True)])

    def read(self, samples: torch.Tensor) -> list[str]:
        """All text of each of B pictures, joined, lower case and without spaces."""
        pixels = (samples.detach().to("cpu", torch.float32).clamp(0, 1) * 255).round().byte()
        return [_bare("".join(self._texts(p.permute(1, 2, 0).contiguous().numpy()))) for p in pixels]


def wanted_text(prompt: Prompt) -> str:
    """Its metadata's "text", else what the prompt has in its first double quotes, as it is compared.

    Raises MissingTextError, a ValueError, where there is neither.
    """
    text = prompt.metadata.get("text")
    if text is None and (quoted := _QUOTED.search(prompt.text)):
        text = quoted[1] or quoted[2]
    if not isinstance(text, str) or not _bare(text):
        raise MissingTextError(
            f"ocr needs the wanted text, as \"text\" in the record or in double quotes in the "
            f"prompt, and the prompt {prompt.text!r} has neither"
        )
    return _bare(text)


def text_score(read: str, wanted: str) -> float:
    """1 where `read` contains `wanted`, else the edit score; both without case and spaces."""
    return 1.0 if wanted in read else edit_score(read, wanted)


def _bare(text: str) -> str:
    return "".join(text.lower().split())


def _rapidocr(threads: int) -> Callable[[np.ndarray], list[str]]:
    """A function from a picture, uint8 [H, W, 3], to the texts found in it, from the top down."""
    try:
        from rapidocr_onnxruntime import RapidOCR
    except ImportError as error:
        raise ParetuneError(
            "the reward 'ocr' needs rapidocr_onnxruntime: pip install 'paretune[judges]'"
        ) from error
    engine = RapidOCR(intra_op_num_threads=threads, inter_op_num_threads=1)

    def texts(picture: np.ndarray) -> list[str]:
        # Red first, and no search for turned lines: as Flow-GRPO calls PaddleOCR.
        found, _ = engine(picture, use_det=True, use_cls=False, use_rec=True)
        return [str(line[1]) for line in found or ()]

    return texts
