"""The record of Qwen-Image."""

from __future__ import annotations

from ...config import ModelConfig
from ...types import ParetuneError
from ..family import Family, Published
from ..options import GuidedOptions, read_options
from ..shapes import PartConfig, Shape, pixel_sides
from ..text_limits import Limit

SIDE = 128  # latents per side, QwenImagePipeline's default
TEXT_TOKENS, MOST_TEXT_TOKENS = 512, 1024  # QwenImagePipeline's default, and the most that it takes
# The text that QwenImagePipeline writes around a prompt. It drops the first `BEFORE` tokens.
WRITTEN = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, "
    "spatial relationships of the objects and background:<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n"
    "<|im_start|>assistant\n"
)
BEFORE = 34


class QwenImageOptions(GuidedOptions):
    """The options of Qwen-Image.

    negative_prompt: by default one space, as the model's authors pass it.
    max_sequence_length: of a prompt and the end of its template; 512 by default.
    """

    negative_prompt: str = " "


def text_tokens(model: ModelConfig) -> int:
    """The most text tokens of a prompt. Raises ParetuneError for more than the pipeline takes."""
    length = read_options(QwenImageOptions, model).max_sequence_length
    if (length or 0) > MOST_TEXT_TOKENS:
        raise ParetuneError(
            f"model.options.max_sequence_length is at most {MOST_TEXT_TOKENS} for Qwen-Image"
        )
    return length or TEXT_TOKENS


def packed(model: ModelConfig, transformer: PartConfig, vae: PartConfig) -> Shape:
    """Latents are packed two by two: [tokens, channels].

    Raises ParetuneError also for a transformer with an input for guidance, which diffusers cannot run.
    """
    if transformer.get("guidance_embeds"):
        raise ParetuneError(
            "model.path: this Qwen-Image takes guidance as an input, which diffusers cannot run; "
            "take one whose transformer/config.json has guidance_embeds: false"
        )
    scale = 2 ** len(vae["temperal_downsample"])
    height, width = pixel_sides(model, SIDE * scale, 2 * scale)
    tokens = (height // (2 * scale)) * (width // (2 * scale))
    return Shape(height, width, (tokens, transformer["in_channels"]), tokens)


def shape(model: ModelConfig, transformer: PartConfig, vae: PartConfig) -> Shape:
    """See `packed`. Raises ParetuneError also for more text tokens than the pipeline takes."""
    text_tokens(model)
    return packed(model, transformer, vae)


def _cut_text(model: ModelConfig) -> int | None:
    return read_options(QwenImageOptions, model).max_sequence_length


def _limits(model: ModelConfig) -> tuple[Limit, ...]:
    return (Limit("tokenizer", "text_encoder", text_tokens(model), WRITTEN, BEFORE),)


def _smaller(model: ModelConfig) -> list[str]:
    return ["model.height and model.width", "model.options.max_sequence_length"]


# transformer/config.json and vae/config.json of Qwen/Qwen-Image and Qwen/Qwen-Image-2512.
_TRANSFORMER = {
    "patch_size": 2, "in_channels": 64, "out_channels": 16, "num_layers": 60, "attention_head_dim": 128,
    "num_attention_heads": 24, "joint_attention_dim": 3584, "guidance_embeds": False,
    "axes_dims_rope": (16, 56, 56),
}  # fmt: skip
_VAE = {
    "base_dim": 96, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_scales": [],
    "temperal_downsample": [False, True, True],
}  # fmt: skip
# The text encoder is Qwen2.5-VL-7B-Instruct, its part for pictures included.
PUBLISHED = Published(
    {"transformer": 20.43, "vae": 0.13, "text_encoder": 8.29}, _TRANSFORMER, _VAE, "AutoencoderKLQwenImage"
)

FAMILY = Family(
    name="qwen_image",
    medium="pictures",
    policy=f"{__package__}.policy:QwenImagePolicy",
    options=QwenImageOptions,
    pipelines=("QwenImagePipeline",),
    parts=("transformer", "vae", "text_encoder"),
    transformer="QwenImageTransformer2DModel",
    time_embedding=lambda index: "time_text_embed.timestep_embedder",
    shape=shape,
    published={"Qwen/Qwen-Image": PUBLISHED, "Qwen/Qwen-Image-2512": PUBLISHED},
    text_tokens=text_tokens,
    cut_text=_cut_text,
    limits=_limits,
    encoders=lambda model: ("text_encoder",),
    passes=lambda model: 2 if model.guidance_scale > 1 else 1,
    smaller=_smaller,
    sampling=(50, 4.0),
)
