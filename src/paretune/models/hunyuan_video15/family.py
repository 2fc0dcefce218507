"""The record of HunyuanVideo 1.5, text to video."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ...config import ModelConfig
from ...types import ParetuneError
from ..family import Family, Published
from ..options import FlowOptions, Positive, PositiveReal, Tiles, read_options
from ..shapes import PartConfig, Shape, latent_frames, pixel_sides
from ..text_limits import Limit

HEIGHT, WIDTH, FRAMES = 480, 848, 121  # HunyuanVideo15Pipeline's, for a model of 480 lines
TEXT_TOKENS, BEFORE = 1000, 108  # of a prompt and the end of its chat, and of the chat before it
GLYPH_TOKENS = 256  # of the texts in quotes
# The chat into which HunyuanVideo15Pipeline writes a prompt. It drops the first `BEFORE` tokens.
_LINES = (
    "You are a helpful assistant. Describe the video by detailing the following aspects:",
    "1. The main content and theme of the video.",
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects.",
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the objects.",
    "4. background environment, light, style and atmosphere.",
    "5. camera angles, movements, and transitions used in the video.",
)
WRITTEN = (
    f"<|im_start|>system\n{(' ' * 9).join(_LINES)}<|im_end|>\n<|im_start|>user\n{{}}<|im_end|>\n"
    "<|im_start|>assistant\n"
)


class Video15Options(FlowOptions):
    """The options of HunyuanVideo 1.5.

    frames: of a clip; None: the pipeline's default. shift: of the schedule; None: that of the pipeline's
    scheduler. tiles: in which large clips are decoded, or none.
    """

    frames: Annotated[Positive, Field(le=10_000)] | None = None
    shift: PositiveReal | None = None
    tiles: Tiles = "blended"


def text_tokens(model: ModelConfig) -> int:
    """The most tokens of a prompt. Raises ParetuneError for more than the pipeline takes."""
    length = read_options(Video15Options, model).max_sequence_length
    if (length or 0) > TEXT_TOKENS:
        raise ParetuneError(f"model.options.max_sequence_length is at most {TEXT_TOKENS} here")
    return length or TEXT_TOKENS


def shape(model: ModelConfig, transformer: PartConfig, vae: PartConfig) -> Shape:
    """Latents [C, t, h, w]. The transformer's input has C + 1 more channels, of a picture and its mask."""
    text_tokens(model)
    space, time = vae["spatial_compression_ratio"], vae["temporal_compression_ratio"]
    patch, patch_time = transformer["patch_size"], transformer["patch_size_t"]
    height, width = pixel_sides(model, (HEIGHT, WIDTH), space * patch)
    frames = read_options(Video15Options, model).frames or FRAMES
    count = latent_frames(frames, time, patch_time, FRAMES)
    latents = (transformer["out_channels"], count, height // space, width // space)
    tokens = count // patch_time * (latents[2] * latents[3] // patch**2)
    return Shape(height, width, latents, tokens, frames)


def _cut_text(model: ModelConfig) -> int | None:
    return read_options(Video15Options, model).max_sequence_length


def _smaller(model: ModelConfig) -> list[str]:
    frames = ["model.options.frames"] if read_options(Video15Options, model).frames != 1 else []
    return [*frames, "model.height and model.width"]


_VAE = {
    "latent_channels": 32, "block_out_channels": (128, 256, 512, 1024, 1024),
    "spatial_compression_ratio": 16, "temporal_compression_ratio": 4,
}  # fmt: skip


def _published(side: int) -> Published:
    transformer = {
        "in_channels": 65, "out_channels": 32, "patch_size": 1, "patch_size_t": 1, "num_layers": 54,
        "num_attention_heads": 16, "attention_head_dim": 128, "target_size": side, "task_type": "t2v",
    }  # fmt: skip
    billions = {"transformer": 8.33, "vae": 1.26, "text_encoder": 7.07, "text_encoder_2": 0.22}
    return Published(billions, transformer, _VAE, "AutoencoderKLHunyuanVideo15")


FAMILY = Family(
    name="hunyuan_video15",
    medium="clips",
    policy=f"{__package__}.policy:HunyuanVideo15Policy",
    options=Video15Options,
    pipelines=("HunyuanVideo15Pipeline",),
    parts=("transformer", "vae", "text_encoder", "text_encoder_2"),
    transformer="HunyuanVideo15Transformer3DModel",
    time_embedding=lambda index: "time_embed.timestep_embedder",
    shape=shape,
    published={
        "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v": _published(640),
        "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-720p_t2v": _published(960),
    },
    text_tokens=lambda model: text_tokens(model) + GLYPH_TOKENS,
    cut_text=_cut_text,
    limits=lambda model: (Limit("tokenizer", "text_encoder", text_tokens(model), WRITTEN, BEFORE),),
    encoders=lambda model: ("text_encoder", "text_encoder_2"),
    passes=lambda model: 2 if model.guidance_scale > 1 else 1,
    smaller=_smaller,
    sampling=(50, 6.0),
)
