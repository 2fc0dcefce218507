"""What a visitor asks, as it came in: of any type and any size. Checked here, whoever sends it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..sampling.source import ModelSource
from ..types import ParetuneError

LONGEST_TOKENS = 400  # characters of the tokens' box
MOST_STEPS, MOST_PIXELS, MOST_FRAMES, MOST_ANSWER = 1000, 4096 * 4096, 1025, 32768


def text(value: Any, what: str, longest: int | None = None) -> str:
    """A text. ParetuneError, one line, for anything else and for one that is too long."""
    if not isinstance(value, str):
        raise ParetuneError(f"the {what} must be a text, not {kind_of(value)}")
    if longest is not None and len(value) > longest:
        raise ParetuneError(f"the {what} has {len(value):,} characters; take at most {longest:,}")
    return value


def numbers(values: Sequence[Any], names: Sequence[str]) -> list[float]:
    """Numbers, whatever they are; what is none becomes NaN where it is empty, and is refused otherwise."""
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
    """A number or nothing, for `read_seed`."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ParetuneError(f"the seed must be a whole number from 0 up, not {kind_of(value)}")
    return value


def whole(value: Any) -> int:
    """The number of an example or of a point; -1, which none has, for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return -1
    return int(value) if 0 <= value < 1 << 31 and value == int(value) else -1


def kind_of(value: Any) -> str:
    """A value of a wrong type in a few words."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and value.bit_length() > 64:
        return "a number of that many digits"
    kinds = {str: "a text", list: "a list", dict: "an object"}
    return kinds.get(type(value), f"{value}" if isinstance(value, int | float) else "that")


def check_load(source: ModelSource) -> None:
    """Refuse to serve what one visitor could keep a machine busy with: a recipe may ask for any number."""
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
