"""The record of HunyuanVideo."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ...config import ModelConfig
from ...types import ParetuneError
from ..family import Family, Published
from ..options import FlowOptions, Positive, PositiveReal, Tiles, read_options
from ..shapes import PartConfig, Shape, pixel_sides
from ..text_limits import Limit

SIDE, FRAMES = 480, 53  # the size that DanceGRPO uses
SMALL_SIDE, SMALL_FRAMES = 32, 8  # for a small model whose autoencoder does not compress
PIXEL_STEP = 16  # required by HunyuanVideoPipeline's check_inputs
TEXT_TOKENS, CLIP_TOKENS = 256, 77
# The text that HunyuanVideoPipeline writes around a prompt. It drops the first `_BEFORE` tokens.
_WRITTEN = (
    "<|start_header_id|>system<|end_header_id|>\n\nDescribe the video by detailing the following aspects: "
    "1. The main content and theme of the video."
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects."
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the objects."
    "4. background environment, light, style and atmosphere."
    "5. camera angles, movements, and transitions used in the video:<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
)
_BEFORE = 95


class VideoOptions(FlowOptions):
    """The options of HunyuanVideo.

    frames: of a clip; None: the model's default. shift: of the schedule; None: the pipeline's default.
    tiles: in which large clips are decoded, or none.
    """

    frames: Annotated[Positive, Field(le=10_000)] | None = None
    shift: PositiveReal | None = None
    tiles: Tiles = "blended"


def time_factor(vae: PartConfig) -> int:
    """The number of frames per latent frame.

    Each block of the autoencoder except the last may halve the frames, so a small autoencoder compresses less
    than the nominal factor of its class.
    """
    return min(vae["temporal_compression_ratio"], 2 ** (len(vae["block_out_channels"]) - 1))


def shape(model: ModelConfig, transformer: PartConfig, vae: PartConfig) -> Shape:
    """Latents [C, t, h, w]."""
    space, time = vae["spatial_compression_ratio"], time_factor(vae)
    patch, patch_time = transformer["patch_size"], transformer["patch_size_t"]
    step = max(PIXEL_STEP, space * patch)
    height, width = pixel_sides(model, SIDE if space > 1 else SMALL_SIDE, step)
    default = FRAMES if time > 1 else SMALL_FRAMES
    frames = read_options(VideoOptions, model).frames or default
    latent_frames = (frames - 1) // time + 1
    if (frames - 1) % time or latent_frames % patch_time:
        fits = f"a multiple of {patch_time}" if time == 1 else f"{time} k + 1"
        raise ParetuneError(
            f"model.options.frames: {frames} does not fit this model: give {fits}, such as {default}"
        )
    latents = (transformer["in_channels"], latent_frames, height // space, width // space)
    return Shape(
        height, width, latents, latent_frames // patch_time * (latents[2] * latents[3] // patch**2), frames
    )


def _cut_text(model: ModelConfig) -> int | None:
    return read_options(VideoOptions, model).max_sequence_length


def _limits(model: ModelConfig) -> tuple[Limit, ...]:
    length = read_options(VideoOptions, model).max_sequence_length or TEXT_TOKENS
    llama = Limit("tokenizer", "text_encoder", length, _WRITTEN, _BEFORE)
    return (llama, Limit("tokenizer_2", "text_encoder_2", CLIP_TOKENS))


def _smaller(model: ModelConfig) -> list[str]:
    options = read_options(VideoOptions, model)
    frames = ["model.options.frames"] if options.frames != 1 else []
    length = ["model.options.max_sequence_length"] if options.max_sequence_length != 0 else []
    return [*frames, "model.height and model.width", *length]


_TRANSFORMER = {
    "patch_size": 2, "patch_size_t": 1, "in_channels": 16, "num_layers": 20, "num_single_layers": 40,
    "num_attention_heads": 24, "attention_head_dim": 128,
}  # fmt: skip
_VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "spatial_compression_ratio": 8, "temporal_compression_ratio": 4,
}  # fmt: skip

FAMILY = Family(
    name="hunyuan_video",
    medium="clips",
    policy=f"{__package__}.policy:HunyuanVideoPolicy",
    options=VideoOptions,
    pipelines=("HunyuanVideoPipeline",),
    parts=("transformer", "vae", "text_encoder", "text_encoder_2"),
    transformer="HunyuanVideoTransformer3DModel",
    time_embedding=lambda index: "time_text_embed.timestep_embedder",
    shape=shape,
    published={
        "hunyuanvideo-community/HunyuanVideo": Published(
            {"transformer": 12.82, "vae": 0.25, "text_encoder": 8.03, "text_encoder_2": 0.12},
            _TRANSFORMER, _VAE, "AutoencoderKLHunyuanVideo",
        ),
    },
    text_tokens=lambda model: TEXT_TOKENS,
    cut_text=_cut_text,
    limits=_limits,
    encoders=lambda model: ("text_encoder", "text_encoder_2"),
    smaller=_smaller,
    sampling=(50, 6.0),
)  # fmt: skip
