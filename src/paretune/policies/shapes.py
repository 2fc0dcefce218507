"""How large a sample is: what a recipe asks for, in its model's own units, by the model's configuration.

Light on purpose: a size that a model cannot draw is refused when the recipe is planned, and what a sample
costs is counted, before anything is loaded. A policy asks the same functions once its model is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import ModelConfig
from ..types import ParetuneError
from .config_files import read_model_config
from .folders import family_of, resolve_path
from .options import VideoOptions, read_options

Facts = Mapping[str, Any]  # the config.json of a part of a pipeline

FLUX_SIDE = 128  # latents a side, as FluxPipeline takes where no size is given
VIDEO_SIDE, VIDEO_FRAMES = 480, 53  # DanceGRPO's
SMALL_SIDE, SMALL_FRAMES = 32, 8  # of a small model whose autoencoder compresses nothing
VIDEO_STEP = 16  # HunyuanVideoPipeline's check_inputs

# What decides sizes in the published models, so that their recipes are planned without a copy.
_SD35 = {
    "sample_size": 128, "patch_size": 2, "in_channels": 16,
    "num_layers": 24, "num_attention_heads": 24, "attention_head_dim": 64,
}  # fmt: skip
_VAE = {"block_out_channels": [128, 256, 512, 512]}
PUBLISHED: dict[str, tuple[Facts, Facts]] = {
    "stabilityai/stable-diffusion-3.5-medium": (_SD35, _VAE),
    "stabilityai/stable-diffusion-3-medium-diffusers": (_SD35, _VAE),
    "stabilityai/stable-diffusion-3.5-large": (
        {**_SD35, "num_layers": 38, "num_attention_heads": 38}, _VAE,
    ),
    "black-forest-labs/FLUX.1-dev": (
        {"in_channels": 64, "num_layers": 19, "num_single_layers": 38,
         "num_attention_heads": 24, "attention_head_dim": 128}, _VAE,
    ),
    "hunyuanvideo-community/HunyuanVideo": (
        {"patch_size": 2, "patch_size_t": 1, "in_channels": 16, "num_layers": 20, "num_single_layers": 40,
         "num_attention_heads": 24, "attention_head_dim": 128},
        {**_VAE, "spatial_compression_ratio": 8, "temporal_compression_ratio": 4},
    ),
}  # fmt: skip


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


def shape_of(family: str, model: ModelConfig, transformer: Facts, vae: Facts) -> Shape:
    """The shape of a family's samples by the configurations of its parts.

    Raises ParetuneError, one line that says what would fit, for sizes that the model cannot draw.
    """
    return _SHAPES[family](model, transformer, vae)


def read_shape(model: ModelConfig) -> Shape | None:
    """The same of a folder or a published model; None where only loading tells, or where nothing is drawn.

    Raises ParetuneError also where a folder's configuration is damaged.
    """
    family = family_of(model.path)
    with _damage_told(model):
        facts = _facts(model.path) if family in _SHAPES else None
        return shape_of(family, model, *facts) if facts else None


def read_backbone(model: ModelConfig) -> tuple[int, int] | None:
    """Blocks of the transformer and units a token has between them, where `read_shape` has a shape."""
    with _damage_told(model):
        facts = _facts(model.path)
        if facts is None:
            return None
        own = facts[0]
        blocks = own["num_layers"] + own.get("num_single_layers", 0)
        return blocks, own["num_attention_heads"] * own["attention_head_dim"]


def _facts(path: str) -> tuple[Facts, Facts] | None:
    """The configurations of a pipeline's transformer and VAE: of its folder, or as published."""
    folder = Path(resolve_path(path))
    if not folder.is_dir():
        return PUBLISHED.get(path)
    transformer, vae = (read_model_config(folder / p / "config.json") for p in ("transformer", "vae"))
    return transformer, vae


@contextmanager
def _damage_told(model: ModelConfig) -> Iterator[None]:
    """One line for a configuration that lacks what is read there."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        reason = " ".join((str(error).strip() or type(error).__name__).split())
        folder = resolve_path(model.path)
        raise ParetuneError(
            f"model.path: the config.json of {folder}'s transformer or vae is damaged: {reason}"
        ) from error


def time_factor(vae: Facts) -> int:
    """How many frames a latent frame of HunyuanVideo stands for: each of an autoencoder's blocks but the last
    may halve them, so a small one reaches less than its class's nominal factor."""
    return min(vae["temporal_compression_ratio"], 2 ** (len(vae["block_out_channels"]) - 1))


def _sd3(model: ModelConfig, transformer: Facts, vae: Facts) -> Shape:
    scale, patch = _scale(vae), transformer["patch_size"]
    height, width = _pixels(model, transformer["sample_size"] * scale, scale * patch)
    latents = (transformer["in_channels"], height // scale, width // scale)
    return Shape(height, width, latents, latents[1] * latents[2] // patch**2)


def _flux(model: ModelConfig, transformer: Facts, vae: Facts) -> Shape:
    side = 2 * _scale(vae)  # latents are packed two by two
    height, width = _pixels(model, FLUX_SIDE * _scale(vae), side)
    tokens = (height // side) * (width // side)
    return Shape(height, width, (tokens, transformer["in_channels"]), tokens)


def _hunyuan_video(model: ModelConfig, transformer: Facts, vae: Facts) -> Shape:
    space, time = vae["spatial_compression_ratio"], time_factor(vae)
    patch, patch_time = transformer["patch_size"], transformer["patch_size_t"]
    step = max(VIDEO_STEP, space * patch)
    height, width = _pixels(model, VIDEO_SIDE if space > 1 else SMALL_SIDE, step)
    default = VIDEO_FRAMES if time > 1 else SMALL_FRAMES
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


_SHAPES: dict[str, Callable[[ModelConfig, Facts, Facts], Shape]] = {
    "sd3": _sd3,
    "flux": _flux,
    "hunyuan_video": _hunyuan_video,
}


def _scale(vae: Facts) -> int:
    """Pixels a latent: every block of the autoencoder but the last halves the picture."""
    return int(2 ** (len(vae["block_out_channels"]) - 1))


def _pixels(model: ModelConfig, default: int, step: int) -> tuple[int, int]:
    """Height and width, the model's own where the recipe gives none."""
    sides = {"height": model.height or default, "width": model.width or default}
    for key, side in sides.items():
        if side % step:
            near = max(step, round(side / step) * step)
            raise ParetuneError(
                f"model.{key}: {side} does not fit this model: give a multiple of {step}, such as {near}"
            )
    return sides["height"], sides["width"]
