"""Adapters that the stages of a run exchange: folders that plain peft and plain diffusers load."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..files import disk_errors, sha256
from ..ops.lowrank import LowRank, compress, modules_of, stack
from ..records.manifest import MANIFEST, read_manifest
from ..types import ParetuneError
from .parts import DIFFUSERS, PAIR_FILES
from .read import read_adapter, write_adapter
from .whole import CHANGES, MODEL

WEIGHTS = "adapter_model.safetensors"
MOMENTUM = "momentum"  # the folder in a merged adapter that holds nesterov's state for the next round
ADAPTER_FILES = [WEIGHTS, "adapter_config.json", DIFFUSERS]


def save_delta(
    folder: Path,
    deltas: Mapping[str, LowRank],
    base_model: str,
    extra: dict[str, Any],
    component: str | None = "transformer",
) -> list[str]:
    """Write an adapter with scale 1, so that its factors hold the whole change.

    The files are written to a temporary folder and then moved, because a stage's folder may already hold a
    log and checkpoints.

    Args:
        folder: the stage's folder.
        deltas: module name -> ΔW.
        base_model: the name to record.
        extra: the provenance.
        component: the part of a diffusers pipeline that it changes; None for other models, for which
            diffusers' file is left out.

    Returns:
        The names of the files.
    """
    aside = folder / ".adapter.tmp"
    with disk_errors(folder):
        shutil.rmtree(aside, ignore_errors=True)
        write_adapter(aside, deltas, base_model, extra, component)
        written = {file.name for file in aside.iterdir()}
        for name in written:
            os.replace(aside / name, folder / name)
        aside.rmdir()
    return [name for name in dict.fromkeys([*ADAPTER_FILES, *PAIR_FILES.values()]) if name in written]


def load_delta(folders: Sequence[Path], scales: Sequence[float] = ()) -> dict[str, LowRank]:
    """The exact sum of the adapters in `folders`, each times its scale; by default all scales are 1."""
    return sum_deltas([dict(read_adapter(folder)) for folder in folders], scales)


def cut_to(deltas: dict[str, LowRank], rank: int) -> float:
    """Cut every module to `rank`, in place. Returns the relative Frobenius error of all modules together."""
    lost = size = 0.0
    for name, delta in deltas.items():
        cut, norm = compress(delta, rank=min(rank, delta.rank)), delta.norm()
        lost, size = lost + (cut.relative_error * norm) ** 2, size + norm**2
        deltas[name] = cut.delta
    return (lost / size) ** 0.5 if size else 0.0


def sum_deltas(
    adapters: Sequence[Mapping[str, LowRank]], scales: Sequence[float] = ()
) -> dict[str, LowRank]:
    """Σ s_i ΔW_i, module by module, without loss; by default every s_i is 1."""
    factors = list(scales) or [1.0] * len(adapters)
    if len(adapters) == 1 and factors == [1.0]:
        return dict(adapters[0])
    return {
        name: stack([a.get(name) for a in adapters], factors)
        for name in modules_of(adapters)
    }


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn a ValueError of ops about its arguments into a ParetuneError for the user."""
    try:
        yield
    except ValueError as error:
        raise ParetuneError(str(error)) from error


def adapter_hash(folder: Path) -> str:
    """The recorded or computed hash of an adapter's weights, on which all its derived results depend."""
    if (folder / MANIFEST).exists():
        recorded = read_manifest(folder).get("files", {})
        for name in (WEIGHTS, CHANGES, MODEL):
            if name in recorded:
                return recorded[name]
    if folder.is_file():  # an adapter of another tool, given by its file
        return sha256(folder)
    if not (folder / WEIGHTS).exists():
        raise ParetuneError(f"{folder} holds no adapter: {WEIGHTS} is missing")
    return sha256(folder / WEIGHTS)
