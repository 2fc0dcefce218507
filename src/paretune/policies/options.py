"""`model.options` of a recipe: the settings that only one family of models has, checked in one line.

Light on purpose: a recipe is planned and refused by these before any model's library is loaded.
"""

from __future__ import annotations

import difflib
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ..config import ModelConfig
from ..limits import brief
from ..types import ParetuneError
from .folders import family_of

Positive = Annotated[int, Field(gt=0, le=1_000_000)]
Tokens = Annotated[int, Field(ge=0, le=1_000_000)]
PositiveReal = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
# Logits over it: below, they leave float16 and float32.
Temperature = Annotated[float, Field(ge=1e-6, le=1e6, allow_inf_nan=False)]


class Options(BaseModel):
    """What one family of models takes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class FlowOptions(Options):
    """FLUX, and all that flow models share. max_sequence_length: text tokens; None: the family's own.

    That is of SD3 256 with T5 and none without (no padding), of FLUX 512, of HunyuanVideo 256.
    quantize: the frozen base while experts train; int8: half of what it takes in bfloat16.
    """

    max_sequence_length: Tokens | None = None
    quantize: Literal["none", "int8"] = "none"


class SD3Options(FlowOptions):
    """load_t5: load the T5 encoder of a pipeline that has one."""

    load_t5: bool = False


class VideoOptions(FlowOptions):
    """frames: of a clip; None: the model's own. shift: the schedule's; None: the pipeline's own."""

    frames: Annotated[Positive, Field(le=10_000)] | None = None
    shift: PositiveReal | None = None


class TextOptions(Options):
    """Of a language model.

    template: "auto" (the tokenizer's chat template, if it has one), "chat", "plain", or a pattern with
    {prompt}. prompt_tokens: what the estimate takes a prompt to be.
    """

    template: str = "auto"
    max_tokens: Positive = 128
    temperature: Temperature = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    prompt_tokens: Positive = 64

    @field_validator("template")
    @classmethod
    def _known(cls, template: str) -> str:
        if template not in {"auto", "chat", "plain"} and "{prompt}" not in template:
            raise ValueError("give auto, chat, plain, or a text that holds {prompt}")
        return template


OPTIONS: dict[str, type[Options]] = {
    "sd3": SD3Options,
    "flux": FlowOptions,
    "hunyuan_video": VideoOptions,
    "causal_lm": TextOptions,
}
T = TypeVar("T", bound=Options)


def check_options(config: ModelConfig) -> None:
    """Raise ParetuneError where the recipe's options are not those of its model's family."""
    read_options(OPTIONS[family_of(config.path)], config)


def read_options(kind: type[T], config: ModelConfig) -> T:
    """A recipe's options as a family's. Raises ParetuneError, one line that names the key."""
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
