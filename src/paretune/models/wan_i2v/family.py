"""The record of Wan 2.1 and 2.2, image to video: Wan whose clip begins with an input picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...config import ModelConfig
from ...types import ParetuneError
from ..family import Published
from ..shapes import PartConfig, Shape
from ..wan import family as wan

CLIP_TOKENS = 257  # of a picture of 224x224 pixels in patches of 14, and the class token: 2.1's


def more_parts(index: Mapping[str, Any]) -> tuple[str, ...]:
    """2.2's A14B has a second transformer, 2.1 an encoder of the picture."""
    encoder = (index.get("image_encoder") or [None])[0] is not None
    return (*wan.second(index), *(("image_encoder",) if encoder else ()))


def shape(model: ModelConfig, transformer: PartConfig, vae: PartConfig) -> Shape:
    """Latents [C, t, h, w]. Raises ParetuneError for a model that needs more than one picture."""
    if transformer.get("pos_embed_seq_len") is not None:
        raise ParetuneError(f"model.path: {model.path} needs a last picture too, which prompts do not have")
    if transformer.get("added_kv_proj_dim") is not None and wan.text_tokens(model) != wan.TEXT_TOKENS:
        raise ParetuneError(
            f"model.options.max_sequence_length: a model that encodes its picture has {wan.TEXT_TOKENS} text "
            "tokens; leave the option out"
        )
    return wan.shape(model, transformer, vae)


def _smaller(model: ModelConfig) -> list[str]:
    return [key for key in wan.FAMILY.smaller(model) if not key.endswith("max_sequence_length")]


# Its latents, those of the picture, and four channels that say which frames the picture gives.
_SECOND = {**wan.LARGE, "in_channels": 36}
_FIRST = {**_SECOND, "image_dim": 1280, "added_kv_proj_dim": 5120}
_BOTH = {"transformer": 14.29, "transformer_2": 14.29, "vae": 0.13, "text_encoder": 5.68}
_ONE = {"transformer": 16.39, "vae": 0.13, "text_encoder": 5.68, "image_encoder": 0.63}
_INDEX = {"boundary_ratio": 0.9}

FAMILY = replace(
    wan.FAMILY,
    name="wan_i2v",
    policy=f"{__package__}.policy:WanImagePolicy",
    pipelines=("WanImageToVideoPipeline",),
    more_parts=more_parts,
    shape=shape,
    published={
        "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers": Published(_ONE, _FIRST, wan.VAE, "AutoencoderKLWan"),
        "Wan-AI/Wan2.1-I2V-14B-720P-Diffusers": Published(_ONE, _FIRST, wan.VAE, "AutoencoderKLWan"),
        "Wan-AI/Wan2.2-I2V-A14B-Diffusers": Published(
            _BOTH, _SECOND, wan.VAE, "AutoencoderKLWan", index=_INDEX
        ),
    },
    known=(),
    smaller=_smaller,
    picture="required",
    picture_tokens=lambda model: CLIP_TOKENS,
)
