"""The record of Qwen-Image-Edit: Qwen-Image with an input picture in its text and in its sequence."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from ...config import ModelConfig
from ...types import ParetuneError
from ..options import Positive, read_options
from ..qwen_image import family as qwen
from ..shapes import PartConfig, Shape
from ..text_limits import Limit

SIDE = 1024  # of an input picture for the transformer, if it is square: the pipelines'
TOKEN, READ_TOKEN = 16, 28  # pixels per side of a token of the transformer, and of the text encoder
TEXT_TOKENS = 512  # that the estimate counts for the words; the pipelines cut no prompt


class QwenEditOptions(qwen.QwenImageOptions):
    """The options of Qwen-Image-Edit.

    picture_side: an input picture is resized to about this number of pixels squared, in its own proportions.
    The pipelines take 1024; smaller pictures take less memory. max_sequence_length: cannot be set.
    """

    picture_side: Annotated[Positive, Field(ge=32, le=4096)] = SIDE


def picture_side(model: ModelConfig) -> int:
    """See `QwenEditOptions`."""
    return read_options(QwenEditOptions, model).picture_side


def picture_tokens(model: ModelConfig) -> int:
    """The tokens of an input picture in the transformer's sequence."""
    return (picture_side(model) // TOKEN) ** 2


def text_tokens(model: ModelConfig) -> int:
    """At most: with the picture that Edit's text encoder reads. Edit Plus's has 384 pixels a side."""
    return TEXT_TOKENS + (picture_side(model) // READ_TOKEN) ** 2


def shape(model: ModelConfig, transformer: PartConfig, vae: PartConfig) -> Shape:
    """See `qwen_image.family.packed`."""
    if read_options(QwenEditOptions, model).max_sequence_length is not None:
        raise ParetuneError(
            "model.options.max_sequence_length: the pipelines of Qwen-Image-Edit cut no prompt; leave it out"
        )
    return qwen.packed(model, transformer, vae)


def _limits(model: ModelConfig) -> tuple[Limit, ...]:
    """The limit is the tokenizer's own. What precedes the prompt differs between the two pipelines."""
    end = qwen.WRITTEN.partition("{}")[2]
    return (Limit("tokenizer", "text_encoder", written="{}" + end),)


FAMILY = replace(
    qwen.FAMILY,
    name="qwen_image_edit",
    time_embedding=lambda index: "",  # samples beside pictures of other sizes run apart
    policy=f"{__package__}.policy:QwenImageEditPolicy",
    options=QwenEditOptions,
    pipelines=("QwenImageEditPlusPipeline", "QwenImageEditPipeline"),
    shape=shape,
    published={"Qwen/Qwen-Image-Edit": qwen.PUBLISHED, "Qwen/Qwen-Image-Edit-2509": qwen.PUBLISHED},
    text_tokens=text_tokens,
    cut_text=lambda model: 0,
    limits=_limits,
    smaller=lambda model: ["model.height and model.width", "model.options.picture_side"],
    picture="required",
    picture_tokens=picture_tokens,
)
