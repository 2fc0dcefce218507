"""What a value of a recipe may be, whatever its key: numbers within bounds, texts of one line, plain data.

A bound stands far above what any run needs. What lies beyond it is a slip of the hand that would otherwise
fill the memory, overflow to infinity, or end in a traceback of the system's.
"""

from __future__ import annotations

import math
import unicodedata
from typing import Annotated, Any, cast

from pydantic import AfterValidator, BeforeValidator, Field

DEEPEST = 32  # lists and mappings in each other
MOST_EPOCHS = 100_000  # of a run's experts of one kind: at a second each, more than a day
MOST_SAMPLES = 1_000_000  # of an epoch, whose noise is drawn at once
MOST_POINTS = 2_000  # of a grid of weights: each is a model to measure
LARGEST = 1e9  # of a factor: a product of three stays within float32
MOST_REWARDS = 32  # each is an expert; the names of a grid's folders hold a share of every reward


def _number(value: Any) -> Any:
    """YAML's yes and no would be 1 and 0."""
    if isinstance(value, bool):
        raise ValueError(f"it is a number, not {str(value).lower()}")
    return value


def one_line(text: str) -> str:
    """A name, a path or a hub id: no line breaks, and no part that a file system cannot hold."""
    if any(unicodedata.category(c) == "Cc" for c in text):
        raise ValueError(f"it is one line without control characters, not {brief(text)}")
    longest = max(len(part.encode(errors="replace")) for part in text.split("/"))
    if longest > 255 or len(text) > 4000:
        raise ValueError(f"no file can have a name of {max(longest, 256)} bytes or more: {brief(text)}")
    return text


def plain(options: dict[str, Any]) -> dict[str, Any]:
    """Options that JSON and YAML can keep: texts, finite numbers, lists and mappings of them."""
    _plain(options, "")
    return options


def _plain(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, child in cast("dict[str, Any]", value).items():
            _plain(child, f"{where}.{key}" if where else key)
    elif isinstance(value, list | tuple):
        for i, child in enumerate(cast("list[Any]", value)):
            _plain(child, f"{where}.{i}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is {value}; numbers are finite")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(f"{where} is a number beyond 64 bits")
    elif value is not None and not isinstance(value, str | int | float):
        raise ValueError(f"{where} is a {type(cast('object', value)).__name__}, which no recipe can hold")


def check_texts(value: Any, where: str = "", depth: int = 0) -> None:
    """Raise ValueError for a text that no file can hold, a key that is no text, and deep nesting."""
    if depth > DEEPEST:
        raise ValueError(f"more than {DEEPEST} lists or mappings in each other")
    if isinstance(value, str) and any(
        unicodedata.category(c) == "Cs" or (unicodedata.category(c) == "Cc" and c not in "\n\r\t")
        for c in value
    ):
        told = f"{where} holds" if where else "a key holds"
        raise ValueError(f"{told} a control character or half a character: {brief(value)}")
    if isinstance(value, dict):
        for key, child in cast("dict[Any, Any]", value).items():
            if not isinstance(key, str):
                raise ValueError(f"{where + ': ' if where else ''}the key {brief(key)} is no text")
            check_texts(key, "", depth)
            check_texts(child, f"{where}.{key}" if where else key, depth + 1)
    elif isinstance(value, list | tuple):
        for child in cast("list[Any]", value):
            check_texts(child, where, depth + 1)


def brief(value: Any, most: int = 80) -> str:
    """A value for a message: its repr in one line, cut where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an int of more than 4,300 digits
        return f"a very large {type(value).__name__}"
    return text if len(text) <= most else f"{text[:most]}.."


def check_epochs(epochs: int) -> None:
    """Of all experts and rounds together. Raises ValueError."""
    if epochs > MOST_EPOCHS:
        raise ValueError(
            f"the rounds and the rewards' epochs make {epochs:,} epochs; a run has at most {MOST_EPOCHS:,}"
        )


def check_samples(samples: int) -> None:
    """Of an epoch. Raises ValueError."""
    if samples > MOST_SAMPLES:
        raise ValueError(
            f"prompts_per_epoch x group_size are {samples:,} samples; an epoch has at most {MOST_SAMPLES:,}"
        )


def check_lattice(key: str, shares: int, divisions: int) -> None:
    """Of the ways to split 1 into so many shares that are multiples of 1 / divisions. Raises ValueError."""
    points = math.comb(divisions + shares - 1, shares - 1)
    if points > MOST_POINTS:
        raise ValueError(
            f"{key}: {divisions} divisions for {shares} weights are {points:,} models to measure; "
            f"give fewer, for at most {MOST_POINTS:,}"
        )


def _of_a_reward(options: dict[str, Any]) -> dict[str, Any]:
    """Names that paretune gives a reward itself."""
    for key in ("name", "spec", "function"):
        if key in options:
            told = "a reward is called by its key under rewards" if key == "name" else "it is taken already"
            raise ValueError(f"no option of a reward can be called {key}: {told}")
    return options


_IsNumber = BeforeValidator(_number)
Line = Annotated[str, Field(min_length=1), AfterValidator(one_line)]
Options = Annotated[dict[str, Any], AfterValidator(plain)]
RewardOptions = Annotated[Options, AfterValidator(_of_a_reward)]
# Whole numbers. No layer is wider than twice the largest rank; models know 1,000 noise levels.
Whole = Annotated[int, _IsNumber]
Positive = Annotated[int, _IsNumber, Field(gt=0, le=1_000_000)]
Steps = Annotated[int, _IsNumber, Field(ge=2, le=1000)]
Epochs = Annotated[int, _IsNumber, Field(gt=0, le=MOST_EPOCHS)]
Pixels = Annotated[int, _IsNumber, Field(gt=0, le=16_384)]
Rank = Annotated[int, _IsNumber, Field(gt=0, le=8192)]
Processes = Annotated[int, _IsNumber, Field(le=1024)]
Seed = Annotated[int, _IsNumber, Field(ge=0, lt=2**63)]
# Real numbers.
NonNegative = Annotated[float, _IsNumber, Field(ge=0, le=LARGEST, allow_inf_nan=False)]
PositiveReal = Annotated[float, _IsNumber, Field(gt=0, le=LARGEST, allow_inf_nan=False)]
Rate = Annotated[float, _IsNumber, Field(gt=0, le=1000, allow_inf_nan=False)]
Share = Annotated[float, _IsNumber, Field(gt=0, lt=1)]
Decay = Annotated[float, _IsNumber, Field(ge=0, lt=1)]
