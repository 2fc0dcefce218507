"""General limits on the values of a recipe: bounded numbers, texts of one line, plain data.

Each bound is far above what any run needs. A value beyond it is a typing mistake, which would otherwise fill
the memory, overflow to infinity, or end in a traceback.
"""

from __future__ import annotations

import math
import unicodedata
from typing import Annotated, Any, cast

from pydantic import AfterValidator, BeforeValidator, Field

DEEPEST = 32  # nested lists and mappings
MOST_EPOCHS = 100_000  # epochs of a run's experts of one kind: at a second each, more than a day
MOST_SAMPLES = 1_000_000  # samples of an epoch, whose noise is drawn at once
MOST_POINTS = 2_000  # points of a grid of weights: each point is a model to measure
LARGEST = 1e9  # of a factor: a product of three stays within float32
MOST_REWARDS = 32  # each reward has an expert, and a folder's name in a grid holds a share of every reward


def _number(value: Any) -> Any:
    """Refuse YAML's yes and no, which Python would take for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError(f"it is a number, not {str(value).lower()}")
    return value


def one_line(text: str) -> str:
    """A name, a path or a hub id: one line, without a part that is too long for a file system."""
    if any(unicodedata.category(c) == "Cc" for c in text):
        raise ValueError(f"it is one line without control characters, not {brief(text)}")
    longest = max(len(part.encode(errors="replace")) for part in text.split("/"))
    if longest > 255 or len(text) > 4000:
        raise ValueError(f"no file can have a name of {max(longest, 256)} bytes or more: {brief(text)}")
    return text


def plain(options: dict[str, Any]) -> dict[str, Any]:
    """Options that JSON and YAML can represent: texts, finite numbers, lists and mappings of them."""
    _plain(options, "")
    return options


def _below(where: str, key: object) -> str:
    """The path of a key below another one, for a message."""
    return f"{where}.{key_name(str(key))}" if where else key_name(str(key))


def _plain(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, child in cast("dict[str, Any]", value).items():
            _plain(child, _below(where, key))
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
    """Raise ValueError for a text that no file can hold, a key that is not a text, and deep nesting."""
    if depth > DEEPEST:
        raise ValueError(f"more than {DEEPEST} lists or mappings in each other")
    if isinstance(value, str) and any(
        unicodedata.category(c) == "Cs" or (unicodedata.category(c) == "Cc" and c not in "\n\r\t")
        for c in value
    ):
        raise ValueError(f"{where or 'a key'} holds a control character or half a character: {brief(value)}")
    if isinstance(value, dict):
        for key, child in cast("dict[Any, Any]", value).items():
            if not isinstance(key, str):
                raise ValueError(f"{where + ': ' if where else ''}the key {brief(key)} is not a text")
            check_texts(key, "", depth)
            check_texts(child, _below(where, key), depth + 1)
    elif isinstance(value, list | tuple):
        for child in cast("list[Any]", value):
            check_texts(child, where, depth + 1)


def key_name(name: str) -> str:
    """A user's key or name for a message: unchanged if it is one short line."""
    return name if name.isprintable() and len(name) <= 100 else brief(name, 100)


def brief(value: Any, most: int = 80) -> str:
    """The repr of a value for a message, shortened to `most` characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # Python refuses an int of more than 4,300 digits
        return f"a very large {type(value).__name__}"
    return text if len(text) <= most else f"{text[:most]}.."


def check_epochs(epochs: int) -> None:
    """Raise ValueError for too many epochs in all experts and rounds together."""
    if epochs > MOST_EPOCHS:
        raise ValueError(
            f"the rounds and the rewards' epochs make {epochs:,} epochs; a run has at most {MOST_EPOCHS:,}"
        )


def check_samples(samples: int) -> None:
    """Raise ValueError for too many samples in an epoch."""
    if samples > MOST_SAMPLES:
        raise ValueError(
            f"prompts_per_epoch x group_size are {samples:,} samples; an epoch has at most {MOST_SAMPLES:,}"
        )


def check_lattice(key: str, shares: int, divisions: int) -> None:
    """Raise ValueError when a lattice of weights has too many points.

    Args:
        key: the recipe's key, for the message.
        shares: how many weights a point has; they sum to 1.
        divisions: each weight is a multiple of 1 / divisions.
    """
    points = math.comb(divisions + shares - 1, shares - 1)
    if points > MOST_POINTS:
        raise ValueError(
            f"{key}: {divisions} divisions for {shares} weights are {points:,} models to measure; "
            f"give fewer, for at most {MOST_POINTS:,}"
        )


def _without_reserved(options: dict[str, Any]) -> dict[str, Any]:
    """Refuse the option names that paretune itself passes to a reward."""
    for key in ("name", "spec", "function"):
        if key in options:
            reason = "a reward is called by its key under rewards" if key == "name" else "it is reserved"
            raise ValueError(f"no option of a reward can be called {key}: {reason}")
    return options


_IsNumber = BeforeValidator(_number)
Line = Annotated[str, Field(min_length=1), AfterValidator(one_line)]
Options = Annotated[dict[str, Any], AfterValidator(plain)]
RewardOptions = Annotated[Options, AfterValidator(_without_reserved)]
# Whole numbers. No layer is wider than twice the largest rank; models are trained with 1,000 noise levels.
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
Unit = Annotated[float, _IsNumber, Field(ge=0, le=1, allow_inf_nan=False)]
Decay = Annotated[float, _IsNumber, Field(ge=0, lt=1)]
