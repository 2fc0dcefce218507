"""The numeric options of the reducers: their meaning, their range, and the message for a wrong value.

Recipes, the command line and the reducers all check options by this one table.
A reducer of another package brings the options that are not listed here: `Reducer.own`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Option:
    """One option. kind: int or float. meaning: a few words. wanted: the range in words. fits: the range."""

    kind: type[int] | type[float]
    meaning: str
    wanted: str
    fits: Callable[[float], bool]


OPTIONS: dict[str, Option] = {
    "density": Option(float, "share of the entries kept", "it lies in (0, 1]", lambda x: 0 < x <= 1),
    "seed": Option(int, "seed of the masks", "it is a whole number, not negative", lambda x: x >= 0),
    "q": Option(float, "rescale the kept entries by 1/q", "it is positive", lambda x: x > 0),
    "momentum": Option(float, "outer momentum μ", "it lies in [0, 1)", lambda x: 0 <= x < 1),
    "outer_lr": Option(float, "outer learning rate η", "it is positive", lambda x: x > 0),
    "divisions": Option(
        int, "steps of the weight lattice", "it is a whole number from 1 to 100", lambda x: 1 <= x <= 100
    ),
    "prompts": Option(
        int, "validation prompts a reward", "it is a whole number from 1 to 1,000,000",
        lambda x: 1 <= x <= 1_000_000,
    ),
}


def fit(name: str, value: Any, option: Option | None = None) -> float:
    """The value as its option's kind; text such as "0.5" is read. Raises ValueError, in one line.

    option: what the name means, where it is not one of `OPTIONS`.
    """
    option = option or OPTIONS[name]
    refused = ValueError(f"{name} {value} cannot be used; {option.wanted}")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise refused
    try:
        number = option.kind(value)
        whole = not isinstance(value, float) or number == value  # int() would cut 2.5 to 2
        good = whole and math.isfinite(number) and option.fits(number)
    except (ValueError, OverflowError):
        raise refused from None
    if not good:
        raise refused
    return number


def hint(name: str, known: Iterable[str]) -> str:
    """The closest valid name, as the end of a sentence; "" when no name is close."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""
