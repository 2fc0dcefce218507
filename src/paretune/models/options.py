"""`model.options` of a recipe: base classes of the families' options, and how options are read.

This module loads no model library, so that a recipe can be checked and planned quickly.
"""

from __future__ import annotations

import difflib
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..config import ModelConfig
from ..limits import brief
from ..types import ParetuneError

Positive = Annotated[int, Field(gt=0, le=1_000_000)]
Tokens = Annotated[int, Field(ge=0, le=1_000_000)]
PositiveReal = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
# How large clips are decoded: in overlapping tiles (`tiles`), or whole, which is exact and takes much memory.
Tiles = Literal["blended", "none"]
# Logits are divided by the temperature: a smaller one would overflow float16 and float32.
Temperature = Annotated[float, Field(ge=1e-6, le=1e6, allow_inf_nan=False)]


class Options(BaseModel):
    """Base class of the options of a family."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class FlowOptions(Options):
    """The options that all flow models share.

    max_sequence_length: the number of text tokens; None: the family's default.
    quantize: of the frozen base while experts train; int8 takes half the memory of bfloat16.
    """

    max_sequence_length: Tokens | None = None
    quantize: Literal["none", "int8"] = "none"


class GuidedOptions(FlowOptions):
    """The options of flow models whose guidance is a second pass.

    negative_prompt: of the second pass, for all prompts.
    """

    negative_prompt: str = ""


T = TypeVar("T", bound=Options)


def read_options(kind: type[T], config: ModelConfig) -> T:
    """Read `model.options` as the options of a family. Raises ParetuneError, which names the wrong key."""
    try:
        return kind.model_validate(config.options)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, kind.model_fields, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(kind.model_fields)}"
            raise ParetuneError(f"unknown key model.options.{brief(key)[1:-1]}; {hint}") from error
        message = first["msg"].removeprefix("Value error, ")
        raise ParetuneError(f"model.options.{key} cannot be {brief(first['input'])}: {message}") from error
