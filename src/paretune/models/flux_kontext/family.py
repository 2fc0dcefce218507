"""The record of FLUX.1-Kontext: FLUX.1 with the latents of an input picture in its sequence."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ...config import ModelConfig
from ..family import Published
from ..flux import family as flux
from ..options import FlowOptions, read_options

PIXELS = 16  # the side of a token of the published model
RESIZED_TOKENS = 4150  # of an input picture at 800x1328 pixels, the largest of Kontext's sizes


class KontextOptions(FlowOptions):
    """Options of FLUX.1-Kontext.

    resize_picture: whether an input picture is resized to the nearest of the sizes that Kontext was trained
    on, about a million pixels, as its pipeline does. Otherwise it keeps its size, rounded down to whole
    tokens, so that small pictures take less memory.
    """

    resize_picture: bool = True


def picture_tokens(model: ModelConfig) -> int:
    """The tokens of an input picture; one that is not resized is taken to have the size of a sample."""
    if read_options(KontextOptions, model).resize_picture:
        return RESIZED_TOKENS
    height, width = model.height or 8 * flux.SIDE, model.width or 8 * flux.SIDE
    return (height // PIXELS) * (width // PIXELS)


FAMILY = replace(
    flux.FAMILY,
    name="flux_kontext",
    time_embedding=lambda index: "",  # samples beside pictures of other sizes run apart
    policy=f"{__package__}.policy:KontextPolicy",
    options=KontextOptions,
    pipelines=("FluxKontextPipeline",),
    shape=partial(flux.shape, options=KontextOptions),
    text_tokens=partial(flux.text_tokens, options=KontextOptions),
    published={
        "black-forest-labs/FLUX.1-Kontext-dev": Published(
            {"transformer": 11.90, "vae": 0.08, "text_encoder": 0.12, "text_encoder_2": 4.76},
            flux.DEV,
            flux.VAE,
        ),
    },
    cut_text=partial(flux.cut_text, options=KontextOptions),
    limits=partial(flux.limits, options=KontextOptions),
    smaller=partial(flux.smaller, options=KontextOptions),
    picture="required",
    picture_tokens=picture_tokens,
)
