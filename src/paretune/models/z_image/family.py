"""The record of Z-Image and Z-Image-Turbo."""

from __future__ import annotations

from ...config import ModelConfig
from ...types import ParetuneError
from ..family import Family, Published
from ..options import GuidedOptions, read_options
from ..shapes import PartConfig, Shape, latent_scale, pixel_sides
from ..text_limits import Limit

SIDE = 1024  # pixels, ZImagePipeline's default
PATCH = 2  # latents per side of an image token, which ZImagePipeline does not change
TEXT_TOKENS = 512  # ZImagePipeline's default
MULTIPLE = 32  # the transformer fills text and image each up to a multiple of it
# The text that the chat template writes around a prompt.
WRITTEN = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


def text_tokens(model: ModelConfig) -> int:
    """The number of Qwen3 tokens of a prompt, its template included."""
    return read_options(GuidedOptions, model).max_sequence_length or TEXT_TOKENS


def filled(tokens: int) -> int:
    """The tokens of a part of the sequence after the transformer has filled it up."""
    return -(-tokens // MULTIPLE) * MULTIPLE


def shape(model: ModelConfig, transformer: PartConfig, vae: PartConfig) -> Shape:
    """Latents [C, h, w].

    Raises ParetuneError beyond the positions that the transformer knows: rows, columns, and the text's end,
    which is the image's position in time.
    """
    scale, (times, *places) = latent_scale(vae), transformer["axes_lens"]
    most = (times - 2) // MULTIPLE * MULTIPLE
    if text_tokens(model) > most:
        raise ParetuneError(f"model.options.max_sequence_length is at most {most} for this model")
    height, width = pixel_sides(model, SIDE, PATCH * scale)
    for key, side, tokens in zip(("height", "width"), (height, width), places, strict=True):
        if side > tokens * PATCH * scale:
            raise ParetuneError(f"model.{key}: {side} is more than {tokens * PATCH * scale} pixels")
    latents = (transformer["in_channels"], height // scale, width // scale)
    return Shape(height, width, latents, filled(latents[1] * latents[2] // PATCH**2))


def _cut_text(model: ModelConfig) -> int | None:
    return read_options(GuidedOptions, model).max_sequence_length


def _limits(model: ModelConfig) -> tuple[Limit, ...]:
    return (Limit("tokenizer", "text_encoder", text_tokens(model), WRITTEN),)


def _smaller(model: ModelConfig) -> list[str]:
    length = ["model.options.max_sequence_length"] if _cut_text(model) != 0 else []
    return ["model.height and model.width", *length]


# Both models' transformer/config.json and vae/config.json on the hub; the autoencoder is that of FLUX.1.
_TRANSFORMER = {
    "all_patch_size": (2,), "all_f_patch_size": (1,), "in_channels": 16, "dim": 3840, "n_layers": 30,
    "n_refiner_layers": 2, "n_heads": 30, "n_kv_heads": 30, "cap_feat_dim": 2560,
    "axes_dims": (32, 48, 48), "axes_lens": (1536, 512, 512),
}  # fmt: skip
_VAE = {
    "block_out_channels": (128, 256, 512, 512), "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4, "layers_per_block": 2, "latent_channels": 16,
    "scaling_factor": 0.3611, "shift_factor": 0.1159, "use_quant_conv": False, "use_post_quant_conv": False,
}  # fmt: skip
# The text encoder is Qwen3-4B, whose output layer is its embedding table.
_SIZES = Published({"transformer": 6.15, "vae": 0.08, "text_encoder": 4.02}, _TRANSFORMER, _VAE)

FAMILY = Family(
    name="z_image",
    medium="pictures",
    policy=f"{__package__}.policy:ZImagePolicy",
    options=GuidedOptions,
    pipelines=("ZImagePipeline",),
    parts=("transformer", "vae", "text_encoder"),
    transformer="ZImageTransformer2DModel",
    time_embedding=lambda index: "t_embedder",
    shape=shape,
    backbone=lambda c: (c["n_layers"] + c["n_refiner_layers"], c["dim"]),
    published={"Tongyi-MAI/Z-Image-Turbo": _SIZES, "Tongyi-MAI/Z-Image": _SIZES},
    text_tokens=lambda model: TEXT_TOKENS,
    cut_text=_cut_text,
    limits=_limits,
    encoders=lambda model: ("text_encoder",),
    passes=lambda model: 2 if model.guidance_scale > 0 else 1,
    smaller=_smaller,
    dtypes=("float32", "bfloat16"),  # in float16 its activations overflow (issue 14 of Tongyi-MAI/Z-Image)
    sampling=(50, 5.0),
)
