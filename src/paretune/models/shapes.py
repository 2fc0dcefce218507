"""How large a sample is, in its model's own units, and the arithmetic that families of models share for it.

Light on purpose: a size that a model cannot draw is refused when the recipe is planned, and what a sample
costs is counted, before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..config import ModelConfig
from ..types import ParetuneError

Facts = Mapping[str, Any]  # the config.json of a part of a pipeline


@dataclass(frozen=True)
class Shape:
    """height, width: pixels. latents: the shape of one sample's, without a batch. tokens: of one sample in
    the transformer's sequence, without its text. frames: of a clip.
    """

    height: int
    width: int
    latents: tuple[int, ...]
    tokens: int
    frames: int = 1


def latent_scale(vae: Facts) -> int:
    """Pixels a latent: every block of the autoencoder but the last halves the picture."""
    return int(2 ** (len(vae["block_out_channels"]) - 1))


def pixel_sides(model: ModelConfig, default: int, step: int) -> tuple[int, int]:
    """Height and width, the model's own where the recipe gives none.

    Raises ParetuneError, one line that says what would fit, for sides that are no multiple of `step`.
    """
    sides = {"height": model.height or default, "width": model.width or default}
    for key, side in sides.items():
        if side % step:
            near = max(step, round(side / step) * step)
            raise ParetuneError(
                f"model.{key}: {side} does not fit this model: give a multiple of {step}, such as {near}"
            )
    return sides["height"], sides["width"]
