"""A cache of latents on disk, so that the samples of a file are encoded once.

It lies beside that of the embeddings. A file holds the digest of its tensor, and a damaged one is made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from ..adapters.tensors import tensor_bytes
from ..files import write_bytes
from ..types import ParetuneError
from .detect import resolve_path
from .embeddings import cache_folder


def cached_latents(
    model: str, shape: Sequence[int], samples: Sequence[str], make: Callable[[], torch.Tensor]
) -> torch.Tensor:
    """The latents of samples, [n, ..].

    Args:
        model: the path or hub id of the model, whose autoencoder encodes.
        shape: of the latents of a sample.
        samples: the SHA-256 of each sample's file.
        make: encodes them.
    """
    key = json.dumps([_autoencoder(model), list(shape), list(samples)])
    folder = cache_folder().with_name("latents")
    path = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"
    stored = _read(path)
    if stored is not None:
        return stored
    latents = make().contiguous()
    with suppress(ParetuneError, OSError):  # a run does not need the cache
        write_bytes(path, save({"latents": latents}, {"sha256": _digest(latents)}))
    return latents


def _autoencoder(model: str) -> list[Any]:
    """A hub id, or the name, size and modification time of the autoencoder's files."""
    folder = Path(resolve_path(model))
    if not folder.is_dir():
        return [model]
    files = sorted(folder.glob("vae/*"))
    return [str(folder.resolve()), *([str(p), p.stat().st_size, p.stat().st_mtime_ns] for p in files)]


def _read(path: Path) -> torch.Tensor | None:
    try:
        with safe_open(str(path), "pt") as file:
            recorded = (file.metadata() or {}).get("sha256")
        latents = load_file(path)["latents"]
    except (OSError, SafetensorError, KeyError):
        return None
    return latents if recorded == _digest(latents) else None


def _digest(latents: torch.Tensor) -> str:
    return hashlib.sha256(tensor_bytes(latents)).hexdigest()
