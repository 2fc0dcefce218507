"""Does a photograph show the wanted text? The OCR reward of Flow-GRPO (arXiv 2505.05470), flow_grpo/ocr.py.

All text that is found is joined in reading order. Blanks (U+0020 alone) go from it and from the wanted text,
and letters become small; accents, punctuation and every script stay as they are. The score is 1 where the
wanted text occurs in what was read, else 1 - min(d, n) / n: d the Levenshtein distance of the two, n the
length of the wanted text, both counted in code points.

The wanted text is what stands after the first straight double quote of the prompt, up to the next one or to
the end, as there. Curly quotes are read where a prompt has no straight ones, and a record's "text" goes
before both; Flow-GRPO has neither.

Flow-GRPO reads with PaddleOCR's English networks, we with the same family's Chinese and English ones in ONNX
(PP-OCRv4 by RapidOCR), whose steps from a picture to lines are RapidOCR's: the formula is the same to the
digit, what is read of a picture may differ. Those networks know few letters with accents; `recogniser` and
`letters` name another network of the family, its Latin one for example.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
import torch

from paretune.types import ParetuneError, Prompt

from ..checks import Checked
from ..worlds.ocr import edit_score

_CURLY = re.compile(r"“([^”]*)”")
FIRST, ALL = "first", "all"


class MissingTextError(ParetuneError, ValueError):
    """A prompt that neither names nor quotes the text that its picture should show."""


class SceneOcr(Checked):
    """The edit score of all text in a photograph; needs the extra `paretune[judges]`.

    threads: how many the networks take; as many as torch takes, unless given. targets: of a prompt that names
    several texts, "first" scores the first alone, as Flow-GRPO does, and "all" the mean over all of them.
    recogniser, letters: files of another network that reads a line (.onnx), and of its letters, one a line.
    """

    name = "scene_ocr"
    range = (0.0, 1.0)
    higher_is_better = True

    def __init__(
        self,
        threads: int | None = None,
        targets: str = FIRST,
        recogniser: str | None = None,
        letters: str | None = None,
    ) -> None:
        if targets not in (FIRST, ALL):
            raise ParetuneError(f"ocr: targets is {FIRST!r} or {ALL!r}, not {targets!r}")
        self._targets = targets
        files = {"rec_model_path": recogniser, "rec_keys_path": letters}
        own = {option: file for option, file in files.items() if file is not None}
        self._texts = _rapidocr(threads or torch.get_num_threads(), own)

    @staticmethod
    def check(prompts: Sequence[Prompt]) -> None:
        """Refuse a prompt that neither names nor quotes a text."""
        for prompt in prompts:
            wanted_texts(prompt)

    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: [B, 3, H, W] in [0, 1]; prompts as in `wanted_texts`. Returns float32 [B]."""
        wanted = [wanted_texts(prompt) for prompt in prompts]
        if self._targets == FIRST:
            wanted = [texts[:1] for texts in wanted]
        read = self.read(samples)
        scores = [[text_score(r, w) for w in texts] for r, texts in zip(read, wanted, strict=True)]
        return torch.tensor([sum(values) / len(values) for values in scores])

    def read(self, samples: torch.Tensor) -> list[str]:
        """All text of each of B pictures, joined, lower case and without blanks."""
        pixels = (samples.detach().to("cpu", torch.float32).clamp(0, 1) * 255).round().byte()
        return [_bare("".join(self._texts(p.permute(1, 2, 0).contiguous().numpy()))) for p in pixels]


def wanted_texts(prompt: Prompt) -> list[str]:
    """Its metadata's "text" (one, or a list), else what the prompt quotes, as they are compared.

    Raises MissingTextError, a ValueError, where there is neither.
    """
    given = prompt.metadata.get("text")
    texts = quoted(prompt.text) if given is None else list(given) if isinstance(given, list) else [given]
    wanted = [_bare(text) for text in texts if isinstance(text, str)]
    if not wanted or len(wanted) < len(texts) or not all(wanted):
        raise MissingTextError(
            f"ocr needs the wanted text, as \"text\" in the record or in double quotes in the "
            f"prompt, and the prompt {prompt.text!r} has neither"
        )
    return wanted


def quoted(text: str) -> list[str]:
    """What stands in straight double quotes, or where there are none, in curly ones.

    A last straight quote that is not closed reaches to the end. Empty quotes are left out.
    """
    found = text.split('"')[1::2] or _CURLY.findall(text)
    return [part for part in found if _bare(part)]


def text_score(read: str, wanted: str) -> float:
    """1 where `read` contains `wanted`, else the edit score; both as they are compared."""
    return 1.0 if wanted in read else edit_score(read, wanted)


def _bare(text: str) -> str:
    return text.replace(" ", "").lower()


def _rapidocr(threads: int, files: dict[str, str]) -> Callable[[np.ndarray], list[str]]:
    """A function from a picture, uint8 [H, W, 3], to the texts found in it, from the top down."""
    try:
        from rapidocr_onnxruntime import RapidOCR
    except ImportError as error:
        raise ParetuneError(
            "the reward 'ocr' needs rapidocr_onnxruntime: pip install 'paretune[judges]'"
        ) from error
    engine = RapidOCR(intra_op_num_threads=threads, inter_op_num_threads=1, **files)

    def texts(picture: np.ndarray) -> list[str]:
        # Red first, and no search for turned lines: as Flow-GRPO calls PaddleOCR.
        found, _ = engine(picture, use_det=True, use_cls=False, use_rec=True)
        return [str(line[1]) for line in found or ()]

    return texts
