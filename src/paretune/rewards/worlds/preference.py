"""How much annotators would like a picture for its prompt: learned from pairs, as PickScore is.

Kirstain et al. 2023, arXiv 2305.01569. The annotators are the world's imaginary ones; see
`tools/worlds/pictures/train_preference.py`. A value is sigmoid(s - s0): s the network's score, a
Bradley-Terry logit, and s0 a constant kept with the weights: the median score of the candidates that
the annotators chose between, some of them faithful, some wrong in a fact, some spoiled. Endings and
the word of a sign are not in the vocabulary: they change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from paretune.types import Prompt

from .towers import FactMatcher, load_tower, probabilities


class PreferenceReward:
    """The chance that annotators prefer this picture to a usual candidate, by a small network."""

    name = "preference"
    range = (0.0, 1.0)
    higher_is_better = True

    def __init__(self) -> None:
        self._network = FactMatcher("deep")
        self._zero = load_tower(self._network, "preference")

    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: [B, 3, 32, 32] in [0, 1]; any prompts. Returns float32 [B]."""
        return probabilities(self._network, self._zero, samples, [p.text for p in prompts])


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
