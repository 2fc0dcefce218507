"""What a recipe asks of its model, by the model's own record and configuration, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..config import ModelConfig
from ..types import ParetuneError
from .config_files import read_model_config
from .detect import family_of, resolve_path
from .options import read_options
from .shapes import Facts, Shape


def check_options(config: ModelConfig) -> None:
    """Raise ParetuneError where the recipe's options are not those of its model's family."""
    read_options(family_of(config.path).options, config)


def read_shape(model: ModelConfig) -> Shape | None:
    """The shape of one sample of a folder's or a published model; None where only loading tells, or where
    nothing is drawn.

    Raises ParetuneError, one line, for sizes that the model cannot draw and for a damaged configuration.
    """
    family = family_of(model.path)
    if family.shape is None:
        return None
    with _damage_told(model):
        facts = _facts(model.path)
        return family.shape(model, *facts) if facts else None


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
