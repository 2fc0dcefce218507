"""The record of FLUX.1."""

from __future__ import annotations

from ...config import ModelConfig
from ...types import ParetuneError
from ..family import Family, Published
from ..options import FlowOptions, read_options
from ..shapes import PartConfig, Shape, latent_scale, pixel_sides
from ..text_limits import Limit

SIDE = 128  # latents per side, FluxPipeline's default
T5_TOKENS = 512


# `options` is that of a family which shares these functions with FLUX.1.


def text_tokens(model: ModelConfig, options: type[FlowOptions] = FlowOptions) -> int:
    """The number of T5 tokens. Raises ParetuneError for more than the pipeline takes."""
    length = read_options(options, model).max_sequence_length
    if (length or 0) > T5_TOKENS:
        raise ParetuneError(f"model.options.max_sequence_length is at most {T5_TOKENS} for FLUX")
    return length or T5_TOKENS


def shape(
    model: ModelConfig, transformer: PartConfig, vae: PartConfig, options: type[FlowOptions] = FlowOptions
) -> Shape:
    """Latents are packed two by two: [tokens, channels]."""
    text_tokens(model, options)
    side = 2 * latent_scale(vae)
    height, width = pixel_sides(model, SIDE * latent_scale(vae), side)
    tokens = (height // side) * (width // side)
    return Shape(height, width, (tokens, transformer["in_channels"]), tokens)


def cut_text(model: ModelConfig, options: type[FlowOptions] = FlowOptions) -> int | None:
    """The `max_sequence_length` that the recipe sets."""
    return read_options(options, model).max_sequence_length


def limits(model: ModelConfig, options: type[FlowOptions] = FlowOptions) -> tuple[Limit, ...]:
    """CLIP cuts at its own limit, T5 at the recipe's or the pipeline's."""
    length = read_options(options, model).max_sequence_length or T5_TOKENS
    return (Limit("tokenizer", "text_encoder"), Limit("tokenizer_2", "text_encoder_2", length))


def smaller(model: ModelConfig, options: type[FlowOptions] = FlowOptions) -> list[str]:
    """The sides, and the text where it is not left out already."""
    length = ["model.options.max_sequence_length"] if cut_text(model, options) != 0 else []
    return ["model.height and model.width", *length]


VAE = {
    "block_out_channels": (128, 256, 512, 512), "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4, "layers_per_block": 2, "latent_channels": 16,
    "scaling_factor": 0.3611, "shift_factor": 0.1159, "use_quant_conv": False, "use_post_quant_conv": False,
}  # fmt: skip
DEV = {
    "in_channels": 64, "num_layers": 19, "num_single_layers": 38, "num_attention_heads": 24,
    "attention_head_dim": 128, "guidance_embeds": True,
}  # fmt: skip


def _published(transformer: float, facts: PartConfig) -> Published:
    billions = {"transformer": transformer, "vae": 0.08, "text_encoder": 0.12, "text_encoder_2": 4.76}
    return Published(billions, facts, VAE)


FAMILY = Family(
    name="flux",
    medium="pictures",
    policy=f"{__package__}.policy:FluxPolicy",
    options=FlowOptions,
    pipelines=("FluxPipeline",),
    parts=("transformer", "vae", "text_encoder", "text_encoder_2"),
    transformer="FluxTransformer2DModel",
    time_embedding=lambda index: "time_text_embed.timestep_embedder",
    shape=shape,
    published={
        "black-forest-labs/FLUX.1-dev": _published(11.90, DEV),
        "black-forest-labs/FLUX.1-Krea-dev": _published(11.90, DEV),
        # Distilled to a few steps without guidance, so it has no layers that embed one.
        "black-forest-labs/FLUX.1-schnell": _published(11.89, {**DEV, "guidance_embeds": False}),
    },
    text_tokens=text_tokens,
    cut_text=cut_text,
    limits=limits,
    encoders=lambda model: ("text_encoder", "text_encoder_2"),
    smaller=smaller,
    sampling=(28, 3.5),
)
