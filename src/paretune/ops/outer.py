"""Outer steps: how much of a round's average is folded, and its momentum over the rounds.

W̄_k is what a reducer makes of the experts of round k. With momentum μ the direction is M_k = μ M_{k-1} +
W̄_k (heavy ball), else W̄_k itself, and s times the direction is folded. Steps below 1 interpolate to the
model that the round started with (WARP's last stage, arXiv 2406.16768); steps above 1 go beyond the average.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

from .lowrank import LowRank, modules_of
from .reducers import outer_momentum

Changes = Mapping[str, LowRank]
STEPS = (0.5, 1.0, 1.5, 2.0, 3.0)  # those that `reduce.step: search` tries


def read_step(value: Any) -> float | tuple[float, ...]:
    """`reduce.step` of a recipe: a number, or the steps to choose from. Raises ValueError, in one line."""
    if value == "search":
        return STEPS
    if not isinstance(value, list | tuple):
        return _number(value)
    given = list(cast("Sequence[Any]", value))
    steps = tuple(dict.fromkeys(_number(one) for one in given))
    if len(steps) < 2:
        raise ValueError(f"a list of steps to choose from has two or more, not {given}")
    return steps


def steps_of_q(density: float, divisions: int) -> tuple[float, ...]:
    """The steps 1 / q for q on a lattice from the share of entries that are kept up to 1.

    With one q for all modules what `dare-q` makes of q is 1 / q times what it makes of 1, so that a choice of
    q by validation (DAREx-q, 2410.09344) is a choice of the step. The first is plain `dare`.
    """
    return tuple(1 / (density + k * (1 - density) / divisions) for k in range(divisions + 1))


def _number(value: Any) -> float:
    if isinstance(value, str):
        raise ValueError(f"give a number above 0, search, or a list of numbers, not {value!r}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("give a number above 0, search, or a list of numbers")
    if value == 0:
        raise ValueError("a step of 0 folds nothing, so that no round would change the model: give more")
    if not 0 < value <= 100:  # also what is no number
        raise ValueError(f"a step lies above 0 and is at most 100, not {value}")
    return float(value)


def scaled(changes: Changes, step: float) -> dict[str, LowRank]:
    """The changes times a step; a step of 1 leaves every bit as it was."""
    if step == 1:
        return dict(changes)
    return {name: LowRank(delta.B * step, delta.A) for name, delta in changes.items()}


def with_momentum(changes: Changes, state: Changes | None, momentum: float) -> dict[str, LowRank]:
    """M_k = μ M_{k-1} + W̄_k, module by module. state: M_{k-1}, None in the first round."""
    before = state or {}
    return {
        name: outer_momentum([changes[name]], [1.0], before.get(name), momentum)
        if name in changes
        else scaled({name: before[name]}, momentum)[name]
        for name in modules_of([changes, before])
    }


def best_step(steps: Sequence[float], values: Sequence[float]) -> float:
    """The step of the greatest value; of equal values the step that is nearest to 1. Raises ValueError."""
    if any(math.isnan(value) for value in values):
        raise ValueError("the measurement of the steps is not a number")
    return max(zip(steps, values, strict=True), key=lambda pair: (pair[1], -abs(pair[0] - 1)))[0]
