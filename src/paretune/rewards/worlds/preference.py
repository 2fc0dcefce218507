"""How much annotators would like a picture for its prompt: learned from pairs, as PickScore is.

Kirstain et al. 2023, arXiv 2305.01569. The annotators are the world's imaginary ones; see
`tools/worlds/pictures/train_preference.py`. A value is sigmoid(s - s0): s the network's score, a
Bradley-Terry logit, and s0 a constant kept with the weights: the median score of the candidates that
the annotators chose between, some of them faithful, some wrong in a fact, some spoiled. Endings and
the word of a sign are not in the vocabulary: they change nothing.

`conflict` is a dial: by that weight the annotators like a picture for being spoiled instead (`spoiled`), so
that this reward opposes composition and text as much as one wants. 0 is the trained network alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from paretune.types import ParetuneError, Prompt

from .spoiled import spoiled
from .towers import FactMatcher, load_tower, probabilities


class PreferenceReward:
    """The chance that annotators prefer this picture to a usual candidate, by a small network."""

    name = "preference"
    range = (0.0, 1.0)
    higher_is_better = True

    def __init__(self, conflict: float = 0.0) -> None:
        """conflict: from 0 to 1, the weight by which spoiled pictures are liked. Raises ParetuneError."""
        if isinstance(conflict, bool) or not isinstance(conflict, (int, float)) or not 0 <= conflict <= 1:
            raise ParetuneError(f"pictures.preference: conflict is a number from 0 to 1, not {conflict!r}")
        self._conflict = float(conflict)
        self._network = FactMatcher("deep")
        self._zero = load_tower(self._network, "preference")

    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: [B, 3, 32, 32] in [0, 1]; any prompts. Returns float32 [B]."""
        captions = [p.text for p in prompts]
        liked = probabilities(self._network, self._zero, samples, captions)
        if self._conflict == 0:
            return liked
        return (1 - self._conflict) * liked + self._conflict * spoiled(self._network, samples, captions)


class PreferenceJudge:
    """The same question to an independent network: other picture layers, seed and pairs."""

    name = "preference_judge"
    range = (0.0, 1.0)
    higher_is_better = True

    def __init__(self) -> None:
        self._network = FactMatcher("wide")
        self._zero = load_tower(self._network, "preference_judge")

    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: [B, 3, 32, 32] in [0, 1]; any prompts. Returns float32 [B]."""
        return probabilities(self._network, self._zero, samples, [p.text for p in prompts])
