"""The options of the reducer `distil`: Reduce by on-policy distillation (Flow-OPD, arXiv 2605.08063)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .merge_options import Option

DISTIL = "distil"
OPTIONS: dict[str, Option] = {
    "steps": Option(int, "updates", "it is a whole number from 1 to 100,000", lambda x: 1 <= x <= 100_000),
    "batch": Option(
        int, "samples of an update", "it is a whole number from 1 to 100,000", lambda x: 1 <= x <= 100_000
    ),
    "learning_rate": Option(float, "of AdamW", "it lies above 0 and is at most 10", lambda x: 0 < x <= 10),
    "times": Option(
        int, "states of a sample", "it is a whole number from 1 to 1,000", lambda x: 1 <= x <= 1000
    ),
    "anchor": Option(
        float, "weight of the round's start", "it lies from 0 to 1,000", lambda x: 0 <= x <= 1000
    ),
}


@dataclass(frozen=True)
class Distilling:
    """How a student is distilled from the experts of a round.

    steps: updates. batch: samples of an update, dealt evenly over the rewards' prompts. learning_rate: of
    AdamW. times: states of each sample's own path that are compared, at most as many as the path has; a
    language model compares every token. anchor: the weight of the same distance to the model that the round
    began with.
    """

    steps: int = 50
    batch: int = 48
    learning_rate: float = 5e-4
    times: int = 2
    anchor: float = 0.0

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Distilling:
        """Of a recipe's `reduce.options`, which are checked already."""
        return replace(cls(), **{name: OPTIONS[name].kind(value) for name, value in options.items()})
