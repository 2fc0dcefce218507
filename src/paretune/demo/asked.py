"""Check the values that a visitor sends, which may have any type and any size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..sampling.source import ModelSource
from ..types import ParetuneError

LONGEST_TOKENS = 400  # characters in the box for tokens
MOST_STEPS, MOST_PIXELS, MOST_FRAMES, MOST_ANSWER = 1000, 4096 * 4096, 1025, 32768


def text(value: Any, what: str, longest: int | None = None) -> str:
    """Check that a value is a text of at most `longest` characters, and return it. what: its name."""
    if not isinstance(value, str):
        raise ParetuneError(f"the {what} must be a text, not {kind_of(value)}")
    if longest is not None and len(value) > longest:
        raise ParetuneError(f"the {what} has {len(value):,} characters; take at most {longest:,}")
    return value


def numbers(values: Sequence[Any], names: Sequence[str]) -> list[float]:
    """Check that all values are numbers, and return them. An empty one becomes NaN. names: of the values."""
    read = []
    for place, value in enumerate(values):
        name = names[place] if place < len(names) else str(place)
        if value is None:
            read.append(math.nan)
        elif isinstance(value, bool) or not isinstance(value, int | float):
            raise ParetuneError(f"the weight of {name!r} must be a number, not {kind_of(value)}")
        else:
            try:
                read.append(float(value))
            except OverflowError:
                kind = kind_of(value)
                raise ParetuneError(f"the weight of {name!r} must be a number, not {kind}") from None
    return read


def seed(value: Any) -> float | int | None:
    """Check that a value is a number or None, for `read_seed`, and return it."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ParetuneError(f"the seed must be a whole number from 0 up, not {kind_of(value)}")
    return value


def whole(value: Any) -> int:
    """The number of an example or of a point. Anything that cannot be one becomes -1, which none has."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return -1
    return int(value) if 0 <= value < 1 << 31 and value == int(value) else -1


def kind_of(value: Any) -> str:
    """Describe a value of a wrong type in a few words."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and value.bit_length() > 64:
        return "a number of that many digits"
    kinds = {str: "a text", list: "a list", dict: "an object"}
    return kinds.get(type(value), f"{value}" if isinstance(value, int | float) else "that")


def check_load(source: ModelSource) -> None:
    """Refuse to serve a model of which one sample could keep the machine busy, for recipes may ask for it."""
    model = source.model
    pixels = (model.height or 1) * (model.width or 1)
    asked = {
        "evaluate.steps": (source.steps, MOST_STEPS),
        "model.height x model.width": (pixels, MOST_PIXELS),
        "model.options.frames": (model.options.get("frames") or 1, MOST_FRAMES),
        "model.options.max_tokens": (model.options.get("max_tokens") or 1, MOST_ANSWER),
    }
    for name, (value, most) in asked.items():
        if isinstance(value, int) and value > most:
            raise ParetuneError(f"{name} is {value:,}: the page draws samples of at most {most:,}")
