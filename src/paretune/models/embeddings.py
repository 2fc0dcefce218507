"""A cache of prompt embeddings on disk, so that an encoder of many gigabytes runs once for each prompt set.

The cache is in PARETUNE_CACHE, else in ~/.cache/paretune, with one safetensors file for a model, its settings
and a list of prompts. Each file holds a digest of its tensors, and a damaged file is computed again. If
nothing can be written, as in a container without a home, the embeddings are computed each time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from ..adapters.tensors import tensor_bytes
from ..files import write_bytes
from ..foreign.cache import cache_folder as folder_of
from ..types import ParetuneError
from .conditions import Conditions
from .detect import resolve_path

DIGEST = "sha256"  # the entry of a file's metadata
TEXT_PARTS = ("text_encoder*", "tokenizer*")  # the folders whose files determine the embedding of a text
PICTURE_PARTS = ("vae*", "image_*", "processor*")  # and those that a picture's depends on besides


def cache_folder() -> Path:
    """The folder of the embeddings in the cache."""
    return folder_of("embeddings")


def cached(
    model: str, key: list[Any], make: Callable[[], Conditions], pictures: bool = False
) -> Conditions:
    """The cached embeddings for a model and a key; if there are none, those of `make`, which are then cached.

    Args:
        model: the path or hub id of the model.
        key: all other inputs of the embeddings, as plain data.
        make: computes the embeddings.
        pictures: whether they contain input pictures, which the autoencoder and other parts read.
    """
    text = json.dumps([_identity(model, TEXT_PARTS + (PICTURE_PARTS if pictures else ())), key])
    path = cache_folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.safetensors"
    stored = _read(path)
    if stored is not None:
        return stored
    conditions = make()
    kept = {n: t.detach().cpu().contiguous() for n, t in conditions.tensors().items()}
    with suppress(ParetuneError, OSError):  # a run does not need the cache
        write_bytes(path, save(kept, {DIGEST: _digest(kept)}))
    return conditions


def _identity(model: str, parts: tuple[str, ...]) -> list[Any]:
    """A hub id, or the name, size and modification time of the files in these parts of a folder."""
    folder = Path(resolve_path(model))
    if not folder.is_dir():
        return [model]
    files = sorted(p for part in parts for p in folder.glob(f"{part}/*"))
    return [str(folder.resolve()), *([str(p), p.stat().st_size, p.stat().st_mtime_ns] for p in files)]


def _read(path: Path) -> Conditions | None:
    """The embeddings in a file; None when there is no file or it is damaged."""
    try:
        with safe_open(str(path), "pt") as file:
            recorded = (file.metadata() or {}).get(DIGEST)
        tensors: dict[str, torch.Tensor] = load_file(path)
        if recorded != _digest(tensors):
            return None
        return Conditions.of_tensors(tensors)
    except (OSError, SafetensorError, TypeError):
        return None


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    """The SHA-256 of the names, dtypes, shapes and bytes of tensors."""
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        total.update(tensor_bytes(tensor))
    return total.hexdigest()
