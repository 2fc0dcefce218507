"""The record of FLUX.2-dev, most of which its smaller relatives share."""

from __future__ import annotations

from ...config import ModelConfig
from ..family import Family, Published
from ..options import FlowOptions, read_options
from ..shapes import PartConfig, Shape, latent_scale, pixel_sides
from ..text_limits import Limit

SIDE = 128  # latents per side, Flux2Pipeline's default
PATCH = 2  # latents per side of a token
TEXT_TOKENS = 512  # Flux2Pipeline's default
# The text that Flux2Pipeline and the chat template write around a prompt.
WRITTEN = (
    "[SYSTEM_PROMPT]You are an AI that reasons about image descriptions. You give structured responses "
    "focusing on object relationships, object\nattribution and actions without speculation.[/SYSTEM_PROMPT]"
    "[INST]{}[/INST]"
)


def text_tokens(model: ModelConfig) -> int:
    """The number of text tokens of a prompt, its template and padding included: the model attends to all."""
    return read_options(FlowOptions, model).max_sequence_length or TEXT_TOKENS


def shape(model: ModelConfig, transformer: PartConfig, vae: PartConfig) -> Shape:
    """Latents [C, h, w] of tokens: each is two by two latents of the autoencoder."""
    side = PATCH * latent_scale(vae)
    height, width = pixel_sides(model, SIDE * latent_scale(vae), side)
    latents = (transformer["in_channels"], height // side, width // side)
    return Shape(height, width, latents, latents[1] * latents[2])


def cut_text(model: ModelConfig) -> int | None:
    """See `Family.cut_text`."""
    return read_options(FlowOptions, model).max_sequence_length


def smaller(model: ModelConfig) -> list[str]:
    """See `Family.smaller`."""
    length = ["model.options.max_sequence_length"] if cut_text(model) != 0 else []
    return ["model.height and model.width", *length]


# vae/config.json of all FLUX.2 models on the hub, which is the default of its class.
VAE = {"block_out_channels": (128, 256, 512, 512), "latent_channels": 32, "layers_per_block": 2}
# transformer/config.json, as in black-forest-labs/flux2 (src/flux2/model.py).
_DEV = {
    "in_channels": 128, "num_layers": 8, "num_single_layers": 48, "num_attention_heads": 48,
    "attention_head_dim": 128, "joint_attention_dim": 15360, "guidance_embeds": True,
}  # fmt: skip

FAMILY = Family(
    name="flux2",
    medium="pictures",
    policy=f"{__package__}.policy:Flux2Policy",
    options=FlowOptions,
    pipelines=("Flux2Pipeline",),
    parts=("transformer", "vae", "text_encoder"),
    transformer="Flux2Transformer2DModel",
    time_embedding=lambda index: "time_guidance_embed.timestep_embedder",
    shape=shape,
    published={
        # The text encoder is Mistral-Small-3.2-24B.
        "black-forest-labs/FLUX.2-dev": Published(
            {"transformer": 32.22, "vae": 0.08, "text_encoder": 24.01}, _DEV, VAE, "AutoencoderKLFlux2"
        ),
    },
    text_tokens=lambda model: TEXT_TOKENS,
    cut_text=cut_text,
    limits=lambda model: (Limit("tokenizer", "text_encoder", text_tokens(model), WRITTEN),),
    encoders=lambda model: ("text_encoder",),
    smaller=smaller,
    sampling=(50, 4.0),
)
