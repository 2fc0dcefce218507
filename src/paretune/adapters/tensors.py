"""Reading and writing of safetensors files, one tensor at a time.

The library maps whole files and takes all tensors of a new file at once, but merging and folding may hold
only one module in memory, however large the model is. The format is 8 bytes of header length (little endian),
a JSON header {name: {dtype, shape, data_offsets}}, then the bytes. Nothing here reads pickle.
"""

from __future__ import annotations

import json
import os
import struct
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..types import ParetuneError

PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def refuse_pickle(path: Path) -> None:
    """Raise ParetuneError for file types that are opened by unpickling."""
    if path.suffix.lower() in PICKLES:
        raise ParetuneError(
            f"{path} is a pickle file, which can run code when it is opened; save it as safetensors"
        )


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: the name of its dtype, its shape, and its bytes [start, end) in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class TensorFile:
    """A safetensors file, opened at each read. entries: tensor name -> position, in the order of bytes."""

    path: Path
    entries: dict[str, Entry]
    metadata: dict[str, str]
    header: bytes

    def read(self, name: str) -> Tensor:
        """Read one tensor into new memory, in its stored dtype."""
        entry = self.entries[name]
        dtype = DTYPES.get(entry.dtype)
        if dtype is None:
            raise ParetuneError(
                f"{self.path} holds {name} as {entry.dtype}, which is not supported"
            )
        if entry.start == entry.end:
            return torch.zeros(entry.shape, dtype=dtype)
        data = bytearray(entry.end - entry.start)
        with self.path.open("rb") as file:
            file.seek(entry.start)
            if file.readinto(data) != len(data):
                raise ParetuneError(f"{self.path} ends in the middle of {name}; it was cut short")
        return torch.frombuffer(data, dtype=dtype).view(entry.shape)

    def read_float(self, name: str) -> Tensor:
        """Read one tensor as float32. Raises ParetuneError on NaN or infinite values."""
        return self.read_finite(name).float()

    def read_finite(self, name: str) -> Tensor:
        """Read one tensor in its stored dtype. Raises ParetuneError on NaN and on values beyond float32."""
        tensor = self.read(name)
        if not bool(torch.isfinite(tensor.float()).all()):
            raise ParetuneError(f"{self.path} holds NaN or infinite values in {name}")
        return tensor


def open_tensors(path: Path) -> TensorFile:
    """Read and check a file's header. Raises ParetuneError when it is pickled, cut or damaged."""
    refuse_pickle(path)
    try:
        with safe_open(str(path), framework="pt"):
            pass  # opening runs the library's checks of lengths, offsets and the file's size
        with path.open("rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            header = file.read(length)
        records: dict[str, Any] = json.loads(header)
    except (SafetensorError, OSError, ValueError, struct.error) as error:
        raise ParetuneError(
            f"{path} is not a readable safetensors file ({error}); it is damaged or was cut short"
        ) from error
    metadata = records.pop("__metadata__", None) or {}
    places = {
        name: Entry(
            record["dtype"],
            tuple(record["shape"]),
            8 + length + record["data_offsets"][0],
            8 + length + record["data_offsets"][1],
        )
        for name, record in records.items()
    }
    ordered = dict(sorted(places.items(), key=lambda item: item[1].start))
    return TensorFile(path, ordered, metadata, header)


def tensor_bytes(tensor: Tensor) -> memoryview:
    """A tensor's bytes as a file stores them (row-major, little endian)."""
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data


class TensorSpool:
    """Collects tensors on disk, then writes one or several files with the same bytes.

    The header depends on the ranks, which may be known only when all modules are computed. Until then the
    bytes are in an unnamed temporary file in `folder`.
    """

    def __init__(self, folder: Path) -> None:
        self._data: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - see close()
        self._records: dict[str, dict[str, Any]] = {}
        self._end = 0

    def add(self, name: str, tensor: Tensor) -> None:
        """Append a tensor, which the caller may free afterwards."""
        data = tensor_bytes(tensor)
        self._data.write(data)
        self._records[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [self._end, self._end + len(data)],
        }
        self._end += len(data)

    def write(
        self, path: Path, metadata: Mapping[str, str], rename: Callable[[str], str | None] = str
    ) -> None:
        """Write added tensors to a file, atomically.

        Args:
            path: the file.
            metadata: of the file's header.
            rename: gives the name of each tensor in the file; None leaves a tensor out.
        """
        header: dict[str, Any] = {"__metadata__": {"format": "pt", **metadata}}
        places: list[tuple[int, int]] = []
        end = 0
        for name, record in self._records.items():
            new, (start, stop) = rename(name), record["data_offsets"]
            if new is not None:
                header[new] = {**record, "data_offsets": [end, end + stop - start]}
                places.append((start, stop))
                end += stop - start
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(struct.pack("<Q", len(text)) + text)
                for start, stop in places:
                    self._data.seek(start)
                    for place in range(start, stop, 1 << 20):
                        file.write(self._data.read(min(1 << 20, stop - place)))
                file.flush()
                os.fsync(file.fileno())  # a crash must not leave a renamed but empty file
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        self._data.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Delete the temporary file."""
        with suppress(OSError):  # closing flushes once more, which may fail on a full disk
            self._data.close()
