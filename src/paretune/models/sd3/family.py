"""The record of Stable Diffusion 3 and 3.5."""

from __future__ import annotations

from ...config import ModelConfig
from ..family import Family, Published
from ..options import FlowOptions, read_options
from ..shapes import PartConfig, Shape, latent_scale, pixel_sides
from ..text_limits import Limit

CLIP_TOKENS, T5_TOKENS = 77, 256


class SD3Options(FlowOptions):
    """The options of Stable Diffusion 3.

    load_t5: load the T5 encoder of a pipeline that has one.
    max_sequence_length: by default 256 with T5, and 0 without T5 (no padding).
    """

    load_t5: bool = False


def t5_tokens(model: ModelConfig) -> int:
    """Text tokens after CLIP's. Without T5 the pipeline would append zeros, which change the picture."""
    options = read_options(SD3Options, model)
    length = options.max_sequence_length
    return length if length is not None else T5_TOKENS * options.load_t5


def shape(model: ModelConfig, transformer: PartConfig, vae: PartConfig) -> Shape:
    """Latents [C, h, w], cut into patches."""
    scale, patch = latent_scale(vae), transformer["patch_size"]
    height, width = pixel_sides(model, transformer["sample_size"] * scale, scale * patch)
    latents = (transformer["in_channels"], height // scale, width // scale)
    return Shape(height, width, latents, latents[1] * latents[2] // patch**2)


def _cut_text(model: ModelConfig) -> int | None:
    options = read_options(SD3Options, model)
    return options.max_sequence_length if options.max_sequence_length or options.load_t5 else 0


def _encoders(model: ModelConfig) -> tuple[str, ...]:
    t5 = ("text_encoder_3",) if read_options(SD3Options, model).load_t5 else ()
    return ("text_encoder", "text_encoder_2", *t5)


def _limits(model: ModelConfig) -> tuple[Limit, ...]:
    options = read_options(SD3Options, model)
    length = T5_TOKENS if options.max_sequence_length is None else options.max_sequence_length
    t5 = (Limit("tokenizer_3", "text_encoder_3", length),) if options.load_t5 else ()
    return (Limit("tokenizer", "text_encoder"), Limit("tokenizer_2", "text_encoder_2"), *t5)


def _smaller(model: ModelConfig) -> list[str]:
    length = ["model.options.max_sequence_length"] if _cut_text(model) != 0 else []
    return ["model.height and model.width", *length]


_VAE = {
    "block_out_channels": (128, 256, 512, 512), "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4, "layers_per_block": 2, "latent_channels": 16,
    "scaling_factor": 1.5305, "shift_factor": 0.0609, "use_quant_conv": False, "use_post_quant_conv": False,
}  # fmt: skip
_COMMON = {
    "sample_size": 128, "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 24,
    "attention_head_dim": 64, "num_attention_heads": 24, "joint_attention_dim": 4096,
    "caption_projection_dim": 1536, "pooled_projection_dim": 2048, "pos_embed_max_size": 192,
}  # fmt: skip
_MEDIUM = {
    **_COMMON, "pos_embed_max_size": 384, "qk_norm": "rms_norm", "dual_attention_layers": tuple(range(13)),
}  # fmt: skip
_LARGE = {
    **_COMMON, "num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432,
    "qk_norm": "rms_norm",
}  # fmt: skip


def _published(transformer: float, facts: PartConfig) -> Published:
    billions = {"transformer": transformer, "vae": 0.08, "text_encoder": 0.12, "text_encoder_2": 0.70,
                "text_encoder_3": 4.76}  # fmt: skip
    return Published(billions, facts, _VAE)


FAMILY = Family(
    name="sd3",
    medium="pictures",
    policy=f"{__package__}.policy:SD3Policy",
    options=SD3Options,
    pipelines=("StableDiffusion3Pipeline",),
    parts=("transformer", "vae", "text_encoder", "text_encoder_2"),  # T5 may be missing
    transformer="SD3Transformer2DModel",
    time_embedding=lambda index: "time_text_embed.timestep_embedder",
    shape=shape,
    published={
        "stabilityai/stable-diffusion-3.5-medium": _published(2.24, _MEDIUM),
        "stabilityai/stable-diffusion-3.5-large": _published(8.06, _LARGE),
        "stabilityai/stable-diffusion-3.5-large-turbo": _published(8.06, _LARGE),
        "stabilityai/stable-diffusion-3-medium-diffusers": _published(2.03, _COMMON),
    },
    text_tokens=lambda model: CLIP_TOKENS + T5_TOKENS,
    cut_text=_cut_text,
    limits=_limits,
    encoders=_encoders,
    passes=lambda model: 2 if model.guidance_scale > 1 else 1,
    smaller=_smaller,
    sampling=(28, 7.0),
)
