"""An independent judge of composition: the probability of "yes, it shows exactly this caption".

VQAScore asks a vision-language model that question (Lin et al. 2024, arXiv 2404.01291); here a
small network trained on the world answers (`tools/worlds/pictures/train_vqa.py`). It shares
nothing with the detector behind GenEval's reward. It does not read words: that is the OCR
judge's business.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from paretune.types import Prompt

from .towers import FactMatcher, load_tower, probabilities


class CaptionJudge:
    """P(yes) for the question whether a picture shows its prompt's caption, word aside."""

    name = "vqa"
    range = (0.0, 1.0)
    higher_is_better = True

    def __init__(self) -> None:
        self._network = FactMatcher("wide")
        load_tower(self._network, "vqa")

    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: [B, 3, 32, 32] in [0, 1]; any prompts. Returns float32 [B]."""
        return probabilities(self._network, 0.0, samples, [p.text for p in prompts])
