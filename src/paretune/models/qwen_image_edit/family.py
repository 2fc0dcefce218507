"""The record of Qwen-Image-Edit: Qwen-Image that sees an input picture, as latents and by its encoder."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from ...config import ModelConfig
from ...types import ParetuneError
from ..options import read_options
from ..qwen_image import family as qwen
from ..shapes import PartConfig, Shape
from ..text_limits import Limit

TOKEN, SEEN = 16, 28  # pixels of a side of a token of the transformer, and of one of the text encoder
# The text that the pipeline writes around a prompt. It drops the first `BEFORE` tokens.
WRITTEN = (
    "<|im_start|>system\nDescribe the key features of the input image (color, shape, size, texture, objects, "
    "background), then explain how the user's text instruction should alter or modify the image. Generate a "
    "new image that meets the user's requirements while maintaining consistency with the original input "
    "where appropriate.<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{}"
    "<|im_end|>\n<|im_start|>assistant\n"
)
BEFORE = 64
LONGEST = 1 << 15  # tokens of a text with its picture: more than any picture and prompt have
PROMPT = 128  # tokens of a prompt with the rest of its template, as the estimate counts them


class EditOptions(qwen.QwenImageOptions):
    """The options of Qwen-Image-Edit.

    picture_pixels: about how many pixels an input picture is resized to, in its own shape, with sides that
    are multiples of 32. 1024 * 1024 as its pipeline does.
    """

    picture_pixels: Annotated[int, Field(ge=32 * 32, le=4096 * 4096)] = 1024 * 1024


def options_of(model: ModelConfig) -> EditOptions:
    """The options of a recipe. Raises ParetuneError for a length of prompts: the pipeline cuts none."""
    options = read_options(EditOptions, model)
    if options.max_sequence_length is not None:
        raise ParetuneError(
            "model.options.max_sequence_length: Qwen-Image-Edit reads whole prompts; leave it out"
        )
    return options


def shape(model: ModelConfig, transformer: PartConfig, vae: PartConfig) -> Shape:
    """See `qwen_image.family.shape`."""
    options_of(model)
    kept = {key: value for key, value in model.options.items() if key != "picture_pixels"}
    return qwen.shape(model.model_copy(update={"options": kept}), transformer, vae)


def text_tokens(model: ModelConfig) -> int:
    """The tokens of the picture in the text encoder, and of a prompt."""
    return options_of(model).picture_pixels // SEEN**2 + PROMPT


FAMILY = replace(
    qwen.FAMILY,
    name="qwen_image_edit",
    policy=f"{__package__}.policy:QwenImageEditPolicy",
    options=EditOptions,
    pipelines=("QwenImageEditPipeline",),
    shape=shape,
    published={"Qwen/Qwen-Image-Edit": qwen.FAMILY.published["Qwen/Qwen-Image"]},
    text_tokens=text_tokens,
    cut_text=lambda model: 0,
    limits=lambda model: (Limit("tokenizer", "text_encoder", LONGEST, WRITTEN, BEFORE),),
    smaller=lambda model: ["model.height and model.width", "model.options.picture_pixels"],
    picture="required",
    picture_tokens=lambda model: options_of(model).picture_pixels // TOKEN**2,
)
