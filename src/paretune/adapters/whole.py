"""Experts that change all weights of a transformer: their files, their exact average, the final transformer.

An expert, and the average of a round, is CHANGES: the difference of every weight to the model that the round
began with, in float32. So what is said of adapters holds of these too: models are sums of folders, each times
a scale. MODEL is a transformer's weights as diffusers names them; only final/ has it. Everything is read and
written one tensor at a time.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch

from ..files import disk_errors, read_json
from ..types import ParetuneError
from .tensors import TensorFile, TensorSpool, open_tensors

CHANGES = "changes.safetensors"
MODEL = "diffusion_pytorch_model.safetensors"
INDEX = f"{MODEL}.index.json"
CONFIG = "config.json"
Named = tuple[str, torch.Tensor]


def whole_weights(folder: Path) -> str | None:
    """The file of a folder that changes all weights: CHANGES or MODEL; None if it has neither."""
    return next((name for name in (CHANGES, MODEL) if (folder / name).is_file()), None)


def save_changes(folder: Path, changes: Iterable[Named], base_model: str) -> list[str]:
    """Write the differences of an expert or an average. Returns the names of its files."""
    _write(folder / CHANGES, changes, base_model)
    return [CHANGES]


def summed(folders: Sequence[Path], scales: Sequence[float] = ()) -> Iterator[Named]:
    """The sum of the changes in `folders`, each times its scale; by default 1. In float64, tensor by tensor.

    Raises ParetuneError for folders whose tensors differ in name or shape: they are of different models.
    """
    files = [open_tensors(folder / CHANGES) for folder in folders]
    factors = list(scales) or [1.0] * len(files)
    for file in files[1:]:
        _check_alike(files[0], file)
    for name in files[0].entries:
        total = torch.zeros(files[0].entries[name].shape, dtype=torch.float64)
        for file, factor in zip(files, factors, strict=True):
            total.add_(file.read_float(name).double(), alpha=factor)
        yield name, total


def average(folders: Sequence[Path], weights: Sequence[float]) -> Iterator[Named]:
    """The weighted mean of experts, in float32 with one rounding. weights: sum to 1."""
    for name, total in summed(folders, weights):
        yield name, total.float()


def inner_products(folders: Sequence[Path]) -> torch.Tensor:
    """The inner products of all pairs of changes, float64 [N, N], with one tensor of each in memory."""
    files = [open_tensors(folder / CHANGES) for folder in folders]
    products = torch.zeros(len(files), len(files), dtype=torch.float64)
    for name in files[0].entries:
        rows = torch.stack([file.read_float(name).double().flatten() for file in files])
        products += rows @ rows.T
    return products


def base_files(transformer: Path) -> dict[str, TensorFile]:
    """Tensor name -> the file that holds it, of a transformer's folder in diffusers' layout."""
    names = [MODEL]
    if (transformer / INDEX).is_file():
        names = sorted(set(read_json(transformer / INDEX)["weight_map"].values()))
    files = [open_tensors(transformer / name) for name in names]
    return {name: file for file in files for name in file.entries}


def check_names(transformer: Path, names: Iterable[str]) -> None:
    """Raise ParetuneError if the base stores its weights under other names than the loaded model has."""
    stored = base_files(transformer)
    if missing := next((name for name in names if name not in stored), None):
        raise ParetuneError(
            f"lora: null: {transformer} stores no {missing}, so no final transformer can be made of it; save "
            "the model once with save_pretrained of this diffusers, or train an adapter"
        )


def write_transformer(base: Path, folders: Sequence[Path], out: Path, base_model: str) -> list[str]:
    """Write base + the changes in `folders` as a transformer's folder, in float32; returns its files' names.

    base: the transformer's folder of the base model. Weights that no expert changed, which are buffers, keep
    their values and dtypes.
    """
    stored = base_files(base)
    changed = dict.fromkeys(open_tensors(folders[0] / CHANGES).entries)
    check_names(base, changed)

    def tensors() -> Iterator[Named]:
        for name, change in summed(folders):
            yield name, (stored[name].read(name).double() + change).float()
        for name, file in stored.items():
            if name not in changed:
                yield name, file.read(name)

    _write(out / MODEL, tensors(), base_model)
    with disk_errors(out):
        shutil.copyfile(base / CONFIG, out / CONFIG)
    return [MODEL, CONFIG]


def _write(path: Path, tensors: Iterable[Named], base_model: str) -> None:
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        spool = TensorSpool(path.parent)
        try:
            for name, tensor in tensors:
                spool.add(name, tensor)
            spool.write(path, {"paretune": json.dumps({"base_model": base_model})})
        finally:
            spool.close()


def _check_alike(first: TensorFile, other: TensorFile) -> None:
    shapes = [{name: entry.shape for name, entry in file.entries.items()} for file in (first, other)]
    if shapes[0] != shapes[1]:
        raise ParetuneError(f"{other.path} and {first.path} are of different models: their tensors differ")
