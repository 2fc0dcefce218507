"""Adapters as the stages of a run exchange them: folders that plain peft and plain diffusers load."""

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
from .read import read_adapter, write_adapter

WEIGHTS = "adapter_model.safetensors"
MOMENTUM = "momentum"  # the folder in a merged one that holds nesterov's state for the next round
DIFFUSERS = "pytorch_lora_weights.safetensors"
ADAPTER_FILES = [WEIGHTS, "adapter_config.json", DIFFUSERS]


def save_delta(
    folder: Path,
    deltas: Mapping[str, LowRank],
    base_model: str,
    extra: dict[str, Any],
    component: str | None = "transformer",
) -> list[str]:
    """Write an adapter whose scale is 1: its factors hold the whole change. Returns the files' names.

    component: the part of a diffusers pipeline that it changes; None: no pipeline's, a file less.

    The files are made aside and moved in: a stage's folder may hold its log and checkpoints already.
    """
    aside = folder / ".adapter.tmp"
    with disk_errors(folder):
        shutil.rmtree(aside, ignore_errors=True)
        write_adapter(aside, deltas, base_model, extra, component)
        for file in aside.iterdir():
            os.replace(file, folder / file.name)
        aside.rmdir()
    return [name for name in ADAPTER_FILES if component or name != DIFFUSERS]


def load_delta(folders: Sequence[Path], scales: Sequence[float] = ()) -> dict[str, LowRank]:
    """The exact sum of the adapters in `folders`, each times its scale (1 where none are given)."""
    return sum_deltas([dict(read_adapter(folder)) for folder in folders], scales)


def cut_to(deltas: dict[str, LowRank], rank: int) -> float:
    """Cut every module to `rank`, in place; returns the relative Frobenius error of the whole."""
    lost = size = 0.0
    for name, delta in deltas.items():
        cut, norm = compress(delta, rank=min(rank, delta.rank)), delta.norm()
        lost, size = lost + (cut.relative_error * norm) ** 2, size + norm**2
        deltas[name] = cut.delta
    return (lost / size) ** 0.5 if size else 0.0


def sum_deltas(
    adapters: Sequence[Mapping[str, LowRank]], scales: Sequence[float] = ()
) -> dict[str, LowRank]:
    """Σ s_i ΔW_i, module by module, with no loss; every s_i is 1 where none are given."""
    factors = list(scales) or [1.0] * len(adapters)
    if len(adapters) == 1 and factors == [1.0]:
        return dict(adapters[0])
    return {
        name: stack([a.get(name) for a in adapters], factors)
        for name in modules_of(adapters)
    }


@contextmanager
def user_errors() -> Iterator[None]:
    """ops speaks of its arguments by ValueError; to the user of a stage they are mistakes."""
    try:
        yield
    except ValueError as error:
        raise ParetuneError(str(error)) from error


def adapter_hash(folder: Path) -> str:
    """The hash of an adapter's weights, what everything made from it depends on: recorded or computed."""
    if (folder / MANIFEST).exists():
        recorded = read_manifest(folder).get("files", {})
        if WEIGHTS in recorded:
            return recorded[WEIGHTS]
    if folder.is_file():  # anyone's adapter, named by its file
        return sha256(folder)
    if not (folder / WEIGHTS).exists():
        raise ParetuneError(f"{folder} holds no adapter: {WEIGHTS} is missing")
    return sha256(folder / WEIGHTS)
