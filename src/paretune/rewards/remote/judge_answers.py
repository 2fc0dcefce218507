"""Read a score from what a judge answers."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from paretune.types import ParetuneError

NUMBER = r"(-?\d+(?:\.\d+)?)"
_THOUGHT = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
TOP = 20  # first words whose probabilities are asked for; the most that the endpoints give


@dataclass(frozen=True)
class Judged:
    """score: None for a refusal. text: the answer."""

    score: float | None
    text: str


class Reading:
    """How scores are read. score: "number", "yes", or a pattern with a group. bounds: of numbers."""

    def __init__(self, score: str, bounds: tuple[float, float]) -> None:
        self._yes = score == "yes"
        try:
            low, high = (float(value) for value in bounds)
        except (TypeError, ValueError) as error:
            told = f"vlm_judge: range must be two numbers, [least, greatest], not {bounds!r}"
            raise ParetuneError(told) from error
        try:
            self._pattern = re.compile(NUMBER if score in {"number", "yes"} else score)
        except re.error as error:
            told = f"vlm_judge: score is number, yes or a regular expression: {error}"
            raise ParetuneError(told) from error
        if self._pattern.groups < 1:
            raise ParetuneError(
                f"vlm_judge: the expression {score!r} needs a group around the number, as in 'Score: (\\d+)'"
            )
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ParetuneError(f"vlm_judge: range must be finite, the least first, not {bounds!r}")
        self.range = (0.0, 1.0) if self._yes else (low, high)

    @property
    def request(self) -> dict[str, Any]:
        """The fields of a request that this way of reading needs."""
        return {"logprobs": True, "top_logprobs": TOP, "max_tokens": 1} if self._yes else {}

    def least(self, higher_is_better: bool) -> float:
        """The worst score."""
        return self.range[0] if higher_is_better else self.range[1]

    def of(self, answer: dict[str, Any]) -> Judged:
        """The score of an answer: {"text": .., "first": {word: log-probability}}."""
        text = str(answer.get("text") or "")
        if self._yes:
            return Judged(_probability_of_yes(answer.get("first") or {}), text)
        found = self._pattern.search(_THOUGHT.sub("", text))
        try:
            value = float(found[1]) if found is not None else math.nan
        except (TypeError, ValueError):  # the group holds no number, or did not take part
            value = math.nan
        low, high = self.range
        return Judged(value if low <= value <= high else None, text)


def _probability_of_yes(first: dict[str, float]) -> float | None:
    """The sum over all spellings. None where neither yes nor no is among the first words."""
    words = [(word.strip(" \n\"'.,").lower(), math.exp(min(0.0, value))) for word, value in first.items()]
    if not {"yes", "no"} & {word for word, _ in words}:
        return None
    return min(1.0, sum(share for word, share in words if word == "yes"))
