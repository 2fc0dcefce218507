"""W += B A inside a safetensors file, one block of rows at a time.

The new file keeps the header of the old file byte for byte (with records of added tensors at its end, if
any), so a shard is changed while it is copied. At any time memory holds one block of W and the factors of one
module, however large the model, the shard or the matrix is.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from ..types import ParetuneError
from .read import AdapterFile
from .renaming import aliases
from .tensors import DTYPES, Entry, TensorFile, tensor_bytes

BLOCK = 32 << 20  # bytes of base weights in memory at a time
QUANTISED = (".qweight", ".weight_packed")  # GPTQ and AWQ; compressed-tensors
FLOATS = {"F64", "F32", "F16", "BF16"}


@dataclass(frozen=True)
class Change:
    """The change of one base tensor.

    module: its ΔW is added. whole: the name of a tensor in the adapter's file that replaces the base tensor
    first.
    """

    module: str | None = None
    whole: str | None = None


@dataclass(frozen=True)
class Added:
    """A tensor that the base does not store: a changed copy of the base tensor `source`."""

    source: str
    change: Change


def locate(
    lora: AdapterFile,
    files: Sequence[TensorFile],
    shared: Mapping[str, str] | None = None,
    stored: Mapping[str, str] | None = None,
) -> dict[str, Change]:
    """Find the base tensors that an adapter changes.

    Names are looked up unchanged, then with one outermost part added to or removed from all of them
    (checkpoints often omit or add one), then by `stored`, then with parts inserted or removed at one place.

    Args:
        lora: the adapter.
        files: the base's files.
        shared: further names of stored tensors -> the stored name.
        stored: name of a tensor in the model's class -> its name in files.

    Returns:
        Base tensor name -> its change.

    Raises:
        ParetuneError: a module is missing or does not fit, or two of its tensors change one base tensor.
    """
    keys = {key: entry for file in files for key, entry in file.entries.items()}
    keys |= {name: keys[stored] for name, stored in (shared or {}).items()}
    changes = _changes(lora)
    rename = _renaming(lora, list(changes), keys, stored or {})
    located = {rename(name): change for name, change in changes.items()}
    for key, change in located.items():
        _check_fit(lora, key, keys[key], change)
    return located


def _changes(lora: AdapterFile) -> dict[str, Change]:
    """Tensor name, as in the adapter -> change.

    peft stores the frozen weight of an adapted embedding M as M.base_layer.weight: ΔW is added to that.
    """
    changes = {f"{module}.weight": Change(module) for module in lora}
    for bare, stored in lora.whole.items():
        name = bare.replace(".base_layer.", ".")
        before = changes.get(name, Change())
        if before.whole is not None or (before.module is not None and name == bare):
            raise ParetuneError(f"{lora.path} changes {name} twice, by {stored} and another of its tensors")
        changes[name] = Change(before.module, stored)
    return changes


def _renaming(
    lora: AdapterFile, names: Sequence[str], keys: Mapping[str, Entry], stored: Mapping[str, str]
) -> Callable[[str], str]:
    """The only rule that turns all names into names of the base."""
    missing = [name for name in names if name not in keys]
    if not missing:
        return str
    packed = next((key for key in keys if key.endswith(QUANTISED)), None)
    if packed is not None:
        raise ParetuneError(
            f"the base is quantised (it stores {packed}): fold into the float model that it was made from"
        )
    first = missing[0]
    added = [key.removesuffix(first) for key in keys if key.endswith("." + first)]
    taken = [first.removesuffix(key) for key in keys if first.endswith("." + key)]
    candidates = [*(_Add(prefix) for prefix in added), *(_Take(prefix) for prefix in taken)]
    rules = [rule for rule in candidates if all(rule(name) in keys for name in names)]
    if not rules and all(stored.get(name) in keys for name in names):
        return stored.__getitem__
    if not rules:
        found = aliases([name.removesuffix(".weight") for name in missing], _modules(keys))
        rules = [rule for rule in found if _lands({rule(name) for name in names}, names, keys)]
    if len(rules) != 1:
        lost = next((name for rule in candidates for name in missing if rule(name) not in keys), first)
        what = f"several tensors named like {first}" if rules else f"no {lost}"
        raise ParetuneError(
            f"the base has {what}, which {lora.path} changes; it is for another model, "
            "or give --rename OLD=NEW"
        )
    return rules[0]


def _lands(targets: set[str], names: Sequence[str], keys: Mapping[str, Entry]) -> bool:
    """Whether a rule turns each name into another one of the base."""
    return len(targets) == len(names) and targets <= keys.keys()


def _modules(keys: Mapping[str, Entry]) -> list[str]:
    return [key.removesuffix(".weight") for key in keys if key.endswith(".weight")]


@dataclass(frozen=True)
class _Add:
    prefix: str

    def __call__(self, name: str) -> str:
        return self.prefix + name


@dataclass(frozen=True)
class _Take:
    prefix: str

    def __call__(self, name: str) -> str:
        # The rule does not apply to a name without the prefix.
        return name.removeprefix(self.prefix) if name.startswith(self.prefix) else ""


def _check_fit(lora: AdapterFile, key: str, base: Entry, change: Change) -> None:
    stored = lora.file.entries[change.whole] if change.whole is not None else base
    if stored.shape != base.shape:
        raise ParetuneError(f"{change.whole} of {lora.path} has another shape than the base's {key}")
    for entry in (base, stored):
        if entry.dtype not in FLOATS and (change.module is not None or base.dtype != stored.dtype):
            raise ParetuneError(
                f"{key} of the base is stored as {base.dtype}; fold into a float model"
                if entry is base
                else f"{change.whole} of {lora.path} is stored as {stored.dtype}, which is not a float"
            )
    if change.module is not None:
        _orient(base, lora, change.module)


def _orient(entry: Entry, lora: AdapterFile, module: str) -> bool:
    """Whether W holds ΔWᵀ: embeddings, and GPT-2's Conv1D (peft's fan_in_fan_out)."""
    rows, columns = lora.shape(module)
    flat = (entry.shape[0], math.prod(entry.shape[1:])) if len(entry.shape) > 1 else (0, 0)
    transposed = lora.layouts[module].kind == "embedding"
    if lora.layouts[module].kind == "linear":
        # peft's flag is the same for all modules and may be stale; only a square matrix needs it.
        square = rows == columns
        transposed = bool(lora.config.get("fan_in_fan_out")) if square else flat == (columns, rows)
    if flat != ((columns, rows) if transposed else (rows, columns)):
        raise ParetuneError(
            f"{module} of {lora.path} is {rows} x {columns}, the base's weight is "
            f"{list(entry.shape)}; it is for another model"
        )
    return transposed


def fold_file(
    file: TensorFile,
    path: Path,
    lora: AdapterFile,
    places: Mapping[str, Change],
    added: Mapping[str, Added] | None = None,
) -> None:
    """Copy a safetensors file with the changes of an adapter.

    Args:
        file: a file of the base.
        path: the new file.
        lora: the adapter.
        places: see `locate`.
        added: tensors to add, by name; only those whose source is in this file are added.
    """
    new_tensors = {name: new for name, new in (added or {}).items() if new.source in file.entries}
    header = _longer_header(file, new_tensors) if new_tensors else file.header
    with file.path.open("rb") as base, lora.path.open("rb") as adapter, path.open("wb") as sink:
        sink.write(struct.pack("<Q", len(header)) + header)
        work = [(entry, places.get(key, Change())) for key, entry in file.entries.items()]
        work += [(file.entries[new.source], new.change) for new in new_tensors.values()]
        for entry, change in work:
            source, stored = base, entry
            if change.whole is not None:
                source, stored = adapter, lora.file.entries[change.whole]
            source.seek(stored.start)
            if change.module is not None:
                _add(source, sink, stored, entry.dtype, lora, change.module)
            elif change.whole is not None:
                sink.write(tensor_bytes(_cast(lora, change.whole, entry.dtype)))
            else:
                _copy(source, sink, entry.end - entry.start)


def _longer_header(file: TensorFile, added: Mapping[str, Added]) -> bytes:
    """The file's header with records of the added tensors, which follow the others."""
    header = json.loads(file.header)
    end = max(record["data_offsets"][1] for key, record in header.items() if key != "__metadata__")
    for name, new in added.items():
        entry = file.entries[new.source]
        start, end = end, end + entry.end - entry.start
        header[name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def _cast(lora: AdapterFile, name: str, dtype: str) -> Tensor:
    """A tensor that the adapter stores whole, in the base's dtype. Raises ParetuneError on overflow."""
    tensor = lora.file.read_finite(name).to(DTYPES[dtype])
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
        raise ParetuneError(f"{name} of {lora.path} holds values too large for {dtype}")
    return tensor


def _copy(source: IO[bytes], sink: IO[bytes], size: int) -> None:
    while size > 0:
        data = source.read(min(size, BLOCK))
        sink.write(data)
        size -= len(data)


def _add(
    source: IO[bytes], sink: IO[bytes], entry: Entry, kept: str, lora: AdapterFile, module: str
) -> None:
    """Copy one weight [rows, width] with W += left @ right, in float32 or float64. kept: the new dtype."""
    delta = lora[module]
    transposed = _orient(entry, lora, module)
    left, right = (delta.A.T, delta.B.T) if transposed else (delta.B, delta.A)
    dtype = DTYPES[entry.dtype]
    wide = torch.float64 if kept == "F64" else torch.float32
    left, right = left.to(wide), right.to(wide)
    rows, width = left.shape[0], right.shape[1]
    step = max(1, BLOCK // (width * dtype.itemsize))
    for start in range(0, rows, step):
        block = left[start : start + step]
        data = bytearray(block.shape[0] * width * dtype.itemsize)
        source.readinto(data)  # type: ignore[attr-defined]
        weight: Tensor = torch.frombuffer(data, dtype=dtype).view(-1, width).to(wide)
        folded = weight.addmm(block, right).to(DTYPES[kept])
        if not bool(torch.isfinite(folded).all()):
            raise ParetuneError(f"folding {module} leaves the range of {kept}, or the base holds NaN there")
        sink.write(tensor_bytes(folded))
