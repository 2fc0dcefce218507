"""The record of Wan 2.1 and 2.2, text to video."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from ...config import ModelConfig
from ...types import ParetuneError
from ..family import Family, Published
from ..options import GuidedOptions, Positive, PositiveReal, read_options
from ..shapes import PartConfig, Shape, pixel_sides
from ..text_limits import Limit

HEIGHT, WIDTH, FRAMES = 480, 832, 81  # WanPipeline's defaults
PIXEL_STEP = 16  # required by WanPipeline's check_inputs
TEXT_TOKENS = 512


class WanOptions(GuidedOptions):
    """The options of Wan.

    frames: of a clip; None: the pipeline's default. shift: of the schedule; None: that of the pipeline's
    scheduler. guidance_scale_2: of the transformer for low noise; None: `guidance_scale`.
    """

    frames: Annotated[Positive, Field(le=10_000)] | None = None
    shift: PositiveReal | None = None
    guidance_scale_2: PositiveReal | None = None


def text_tokens(model: ModelConfig) -> int:
    """The number of UMT5 tokens of every prompt, after which zeros are filled in."""
    return read_options(WanOptions, model).max_sequence_length or TEXT_TOKENS


def shape(model: ModelConfig, transformer: PartConfig, vae: PartConfig) -> Shape:
    """Latents [C, t, h, w]."""
    # Folders that were saved before diffusers had these two keys have an autoencoder with its defaults.
    space, time = vae.get("scale_factor_spatial") or 8, vae.get("scale_factor_temporal") or 4
    patch_time, patch_height, patch_width = transformer["patch_size"]
    step = max(PIXEL_STEP, space * max(patch_height, patch_width))
    sides = {"height": model.height or HEIGHT, "width": model.width or WIDTH}
    height, width = pixel_sides(model.model_copy(update=sides), HEIGHT, step)
    frames = read_options(WanOptions, model).frames or FRAMES
    latent_frames = (frames - 1) // time + 1
    if (frames - 1) % time or latent_frames % patch_time:
        raise ParetuneError(
            f"model.options.frames: {frames} does not fit this model: give {time} k + 1, such as {FRAMES}"
        )
    # A transformer that sees an input picture beside the latents has more channels on its way in.
    channels = transformer.get("out_channels") or transformer["in_channels"]
    latents = (channels, latent_frames, height // space, width // space)
    area = (latents[2] // patch_height) * (latents[3] // patch_width)
    return Shape(height, width, latents, latent_frames // patch_time * area, frames)


def second(index: Mapping[str, Any]) -> tuple[str, ...]:
    """A pipeline with a boundary between noise levels has a transformer for each side of it."""
    return () if index.get("boundary_ratio") is None else ("transformer_2",)


def _time_embedding(index: Mapping[str, Any]) -> str:
    """None of a pipeline with two transformers, nor of one that has a time for every token."""
    several = bool(second(index)) or bool(index.get("expand_timesteps"))
    return "" if several else "condition_embedder.time_embedder"


def _cut_text(model: ModelConfig) -> int | None:
    return read_options(WanOptions, model).max_sequence_length


def _smaller(model: ModelConfig) -> list[str]:
    frames = ["model.options.frames"] if read_options(WanOptions, model).frames != 1 else []
    return [*frames, "model.height and model.width", "model.options.max_sequence_length"]


_SMALL = {
    "patch_size": (1, 2, 2), "num_attention_heads": 12, "attention_head_dim": 128, "in_channels": 16,
    "out_channels": 16, "ffn_dim": 8960, "num_layers": 30,
}  # fmt: skip
LARGE = {**_SMALL, "num_attention_heads": 40, "ffn_dim": 13824, "num_layers": 40}
VAE = {"z_dim": 16, "scale_factor_spatial": 8, "scale_factor_temporal": 4}


def _published(transformer: PartConfig, billions: float, boundary: float | None = None) -> Published:
    index = {} if boundary is None else {"boundary_ratio": boundary}
    sizes = dict.fromkeys(("transformer", *second(index)), billions)
    sizes |= {"vae": 0.13, "text_encoder": 5.68}
    return Published(sizes, transformer, VAE, "AutoencoderKLWan", index=index)


FAMILY = Family(
    name="wan",
    medium="clips",
    policy=f"{__package__}.policy:WanPolicy",
    options=WanOptions,
    pipelines=("WanPipeline",),
    parts=("transformer", "vae", "text_encoder"),
    more_parts=second,
    transformer="WanTransformer3DModel",
    time_embedding=_time_embedding,
    shape=shape,
    published={
        "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": _published(_SMALL, 1.42),
        "Wan-AI/Wan2.1-T2V-14B-Diffusers": _published(LARGE, 14.29),
        "Wan-AI/Wan2.2-T2V-A14B-Diffusers": _published(LARGE, 14.29, boundary=0.875),
    },
    known=("Wan-AI/Wan2.2-TI2V-5B-Diffusers",),
    text_tokens=text_tokens,
    cut_text=_cut_text,
    limits=lambda model: (Limit("tokenizer", "text_encoder", text_tokens(model)),),
    encoders=lambda model: ("text_encoder",),
    passes=lambda model: 2 if model.guidance_scale > 1 else 1,
    smaller=_smaller,
    sampling=(50, 5.0),
)
