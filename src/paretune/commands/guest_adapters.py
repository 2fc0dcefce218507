"""Adapters that a command is given beside its model, checked against that model before anything is drawn."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ..adapters.inputs import measurable, open_adapter
from ..adapters.store import load_delta
from ..models.detect import resolve_path
from ..models.lora import check_changes
from ..ops.lowrank import LowRank
from ..types import ParetuneError


def guest_changes(
    option: str, name: str, model: str, transformer: nn.Module, aside: Path
) -> dict[str, LowRank]:
    """The changes of an adapter over a model.

    Args:
        option: the command's option, for messages.
        name: the adapter: a folder, a file or a hub id.
        model: the model's path, as the recipe says it.
        transformer: the opened model.
        aside: a folder for adapters that have to be rewritten.

    Raises:
        ParetuneError: the adapter is of another base, by the name in its configuration or by its shapes.
    """
    try:
        base = open_adapter(name).base_model
    except ParetuneError as error:
        raise ParetuneError(f"{option}: {error}") from error
    if base and _differ(base, model):
        raise ParetuneError(
            f"{option} {name} was trained on {base}, and the base here is {model}: give an adapter of that"
        )
    changes = load_delta(measurable([name], (), aside))
    try:
        check_changes(transformer, changes)
    except ParetuneError as error:
        raise ParetuneError(f"{option} {name}: {error}; the base here is {model}") from error
    return changes


def _differ(base: str, model: str) -> bool:
    """Whether two models differ by their names alone.

    A hub id and a folder may be one model, of which only the shapes can tell.
    """
    first, second = Path(_place(base)), Path(_place(model))
    if first.is_dir() != second.is_dir():
        return False
    return first.resolve() != second.resolve() if first.is_dir() else first != second


def _place(path: str) -> str:
    """The folder of a model that is here; otherwise its name."""
    try:
        return resolve_path(path.rstrip("/"))
    except ParetuneError:  # a GGUF file, or a model that is to be fetched, that is not here
        return path
