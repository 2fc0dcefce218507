"""W += B A inside a safetensors file, a block of rows at a time.

The new file has the old one's header byte for byte, so a shard is copied and changed on the way:
memory is a block of W and the factors of one module, whatever the model, shard or matrix is.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from ..policies.adapter_files import AdapterFile
from ..policies.tensor_files import DTYPES, Entry, TensorFile, tensor_bytes
from ..types import ParetuneError

BLOCK = 32 << 20  # bytes of base weights in memory at a time
FLOATS = {"F64", "F32", "F16", "BF16"}


def locate(lora: AdapterFile, files: Sequence[TensorFile]) -> dict[str, str]:
    """Base tensor name -> the adapter's module, or its whole tensor, that changes it.

    A module is looked for as `<module>.weight`, then by the one name that either ends in the other
    (checkpoints often leave out, or add, the outermost module). Raises ParetuneError when a module
    is not there or does not fit.
    """
    keys = {key: entry for file in files for key, entry in file.entries.items()}
    places: dict[str, str] = {}
    wanted = {f"{module}.weight": module for module in lora}
    wanted |= {bare.replace(".base_layer.", "."): bare for bare in lora.whole}
    for name, source in wanted.items():
        key = _find(name, keys)
        if key is None:
            raise ParetuneError(
                f"the base has no {name}, which {lora.path} changes; it is for another model"
            )
        if source in lora:
            _orient(keys[key], lora, source)
            if keys[key].dtype not in FLOATS:
                raise ParetuneError(
                    f"{key} of the base is stored as {keys[key].dtype}; fold into a float model"
                )
        elif keys[key].shape != lora.file.entries[lora.whole[source]].shape:
            raise ParetuneError(f"{source} of {lora.path} has another shape than the base's {key}")
        places[key] = source
    return places


def _find(name: str, keys: Mapping[str, Entry]) -> str | None:
    if name in keys:
        return name
    ends = [key for key in keys if key.endswith("." + name) or name.endswith("." + key)]
    return ends[0] if len(ends) == 1 else None


def _orient(entry: Entry, lora: AdapterFile, module: str) -> bool:
    """Whether W holds ΔWᵀ: embeddings, and GPT-2's Conv1D (peft's fan_in_fan_out)."""
    rows, columns = lora.shape(module)
    flat = (entry.shape[0], math.prod(entry.shape[1:])) if len(entry.shape) > 1 else (0, 0)
    transposed = lora.layouts[module].kind == "embedding"
    if lora.layouts[module].kind == "linear":
        # peft's flag is one for all modules and may be stale; only a square matrix needs it.
        square = rows == columns
        transposed = bool(lora.config.get("fan_in_fan_out")) if square else flat == (columns, rows)
    if flat != ((columns, rows) if transposed else (rows, columns)):
        raise ParetuneError(
            f"{module} of {lora.path} is {rows} x {columns}, the base's weight is "
            f"{list(entry.shape)}; it is for another model"
        )
    return transposed


def fold_file(file: TensorFile, path: Path, lora: AdapterFile, places: Mapping[str, str]) -> None:
    """Copy a safetensors file to path, adding ΔW to the tensors in places (see `locate`)."""
    with file.path.open("rb") as source, path.open("wb") as sink:
        sink.write(struct.pack("<Q", len(file.header)) + file.header)
        for key, entry in file.entries.items():
            source.seek(entry.start)
            change = places.get(key)
            if change is None:
                _copy(source, sink, entry.end - entry.start)
            elif change in lora:
                _add(source, sink, entry, lora, change)
            else:
                whole = lora.file.read(lora.whole[change])
                sink.write(tensor_bytes(whole.to(DTYPES[entry.dtype])))


def _copy(source: IO[bytes], sink: IO[bytes], size: int) -> None:
    while size > 0:
        data = source.read(min(size, BLOCK))
        sink.write(data)
        size -= len(data)


def _add(source: IO[bytes], sink: IO[bytes], entry: Entry, lora: AdapterFile, module: str) -> None:
    """Stream one weight [rows, width] through W += left @ right, in float32 or wider."""
    delta = lora[module]
    transposed = _orient(entry, lora, module)
    left, right = (delta.A.T, delta.B.T) if transposed else (delta.B, delta.A)
    dtype = DTYPES[entry.dtype]
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    left, right = left.to(wide), right.to(wide)
    rows, width = left.shape[0], right.shape[1]
    step = max(1, BLOCK // (width * dtype.itemsize))
    for start in range(0, rows, step):
        block = left[start : start + step]
        data = bytearray(block.shape[0] * width * dtype.itemsize)
        source.readinto(data)  # type: ignore[attr-defined]
        weight: Tensor = torch.frombuffer(data, dtype=dtype).view(-1, width).to(wide)
        folded = weight.addmm(block, right).to(dtype)
        if not bool(torch.isfinite(folded).all()):
            raise ParetuneError(
                f"folding {module} leaves the range of {entry.dtype}, or the base holds NaN there"
            )
        sink.write(tensor_bytes(folded))
