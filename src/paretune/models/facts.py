"""Checks and sizes of a recipe's model, from its family's record and its config.json, without loading it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..config import ModelConfig
from ..types import ParetuneError
from .config_files import read_model_config
from .detect import family_of, resolve_path
from .options import read_options
from .shapes import PartConfig, Shape


def check_options(config: ModelConfig) -> None:
    """Raise ParetuneError if the family does not run in the dtype, or lacks one of `model.options`."""
    family = family_of(config.path)
    if config.dtype not in family.dtypes:
        raise ParetuneError(
            f"model.dtype: {config.dtype} is no dtype of {family.name} models; "
            f"give {' or '.join(family.dtypes)}"
        )
    read_options(family.options, config)


def read_shape(model: ModelConfig) -> Shape | None:
    """The shape of one sample of a model folder or a published model.

    None for other hub ids, whose shape is known only when they are loaded, and for models without latents.
    Raises ParetuneError for sizes that the model cannot draw, and for a damaged configuration.
    """
    family = family_of(model.path)
    if family.shape is None:
        return None
    with _damage_reported(model):
        configs = _part_configs(model.path)
        return family.shape(model, *configs) if configs else None


def read_backbone(model: ModelConfig) -> tuple[int, int] | None:
    """The number of the transformer's blocks and its hidden size, if `read_shape` gives a shape."""
    with _damage_reported(model):
        configs = _part_configs(model.path)
        if configs is None:
            return None
        return family_of(model.path).backbone(configs[0])


def _part_configs(path: str) -> tuple[PartConfig, PartConfig] | None:
    """The configurations of a pipeline's transformer and VAE, from its folder or as published."""
    folder, family = Path(resolve_path(path)), family_of(path)
    if not folder.is_dir():
        published = family.published.get(path)
        return (published.transformer, published.vae) if published and published.transformer else None
    transformer, vae = (
        read_model_config(folder / part / "config.json") if part in family.parts else {}
        for part in ("transformer", "vae")
    )
    return transformer, vae


@contextmanager
def _damage_reported(model: ModelConfig) -> Iterator[None]:
    """Turn errors of reading a damaged configuration into a ParetuneError."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        reason = " ".join((str(error).strip() or type(error).__name__).split())
        folder = resolve_path(model.path)
        raise ParetuneError(
            f"model.path: the config.json of {folder}'s transformer or vae is damaged: {reason}"
        ) from error
