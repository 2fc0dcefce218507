"""Which of many rounds are measured, and named in a plot."""

from __future__ import annotations

from collections.abc import Sequence

MANY = 8  # rounds that fit beside each other in a plot of a page


def spaced(rounds: Sequence[int]) -> list[int]:
    """All of a few rounds and evenly spaced ones of many, at most MANY; the last always."""
    step = -(-len(rounds) // MANY)
    return list(rounds)[::-1][::step][::-1] if rounds else []


def measured_rounds(rounds: int) -> list[int]:
    """The rounds of a run after which its model is measured: `spaced` ones, and the first."""
    return sorted({1, *spaced(range(1, rounds + 1))})
