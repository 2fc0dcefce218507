"""The size of a sample in pixels, latents and tokens, and arithmetic that the families share.

This module loads no model library, so that planning can refuse sizes that a model cannot draw, and estimate
the cost of a sample, before a model is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..config import ModelConfig
from ..types import ParetuneError

PartConfig = Mapping[str, Any]  # the config.json of a part of a pipeline


@dataclass(frozen=True)
class Shape:
    """The size of one sample.

    height, width: in pixels. latents: the shape of its latents, without a batch. tokens: its length in the
    transformer's sequence, without text. frames: of a clip.
    """

    height: int
    width: int
    latents: tuple[int, ...]
    tokens: int
    frames: int = 1


def latent_scale(vae: PartConfig) -> int:
    """Pixels per latent: every block of the autoencoder except the last halves the picture's sides."""
    return int(2 ** (len(vae["block_out_channels"]) - 1))


def backbone(transformer: PartConfig) -> tuple[int, int]:
    """The number of a transformer's blocks and its hidden size, by the names that most configurations use."""
    blocks = transformer["num_layers"] + transformer.get("num_single_layers", 0)
    return blocks, transformer["num_attention_heads"] * transformer["attention_head_dim"]


def pixel_sides(model: ModelConfig, default: int | tuple[int, int], step: int) -> tuple[int, int]:
    """The height and width of a sample.

    Args:
        model: the recipe's model, which may set them.
        default: both, or height and width, if the recipe does not set them.
        step: both must be multiples of it.

    Raises:
        ParetuneError: a side is not a multiple of `step`; the message names one that fits.
    """
    tall, wide = default if isinstance(default, tuple) else (default, default)
    sides = {"height": model.height or tall, "width": model.width or wide}
    for key, side in sides.items():
        if side % step:
            near = max(step, round(side / step) * step)
            raise ParetuneError(
                f"model.{key}: {side} does not fit this model: give a multiple of {step}, such as {near}"
            )
    return sides["height"], sides["width"]


def latent_frames(frames: int, time: int, patch: int, default: int) -> int:
    """The latent frames of a clip: one for the first frame, and one for `time` frames each after it.

    Raises ParetuneError where the frames do not come out even, or the latent ones in patches of `patch`; the
    message names `default`.
    """
    latents = (frames - 1) // time + 1
    if (frames - 1) % time or latents % patch:
        raise ParetuneError(
            f"model.options.frames: {frames} does not fit this model: give {time} k + 1, such as {default}"
        )
    return latents
