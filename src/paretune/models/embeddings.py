"""Prompt embeddings on disk, so that an encoder of many gigabytes runs once for each prompt set.

They lie in PARETUNE_CACHE, else ~/.cache/paretune, one safetensors file for a model, its settings and
a list of prompts. Each carries a digest of its tensors: one that is damaged is made again. Where nothing
can be written, as in a container without a home, the embeddings are made each time.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from ..adapters.tensors import tensor_bytes
from ..files import write_bytes
from ..types import ParetuneError
from .detect import resolve_path
from .flow import Conditions

DIGEST = "sha256"  # the entry of a file's metadata


def cache_folder() -> Path:
    """Where embeddings are kept."""
    place = os.environ.get("PARETUNE_CACHE")
    if place:
        return Path(place) / "embeddings"
    try:
        home = Path.home()
    except RuntimeError:  # a user without a home, as containers have
        home = Path(tempfile.gettempdir()) / f"paretune-{os.getuid()}"
    return home / ".cache" / "paretune" / "embeddings"


def cached(model: str, key: list[Any], make: Callable[[], Conditions]) -> Conditions:
    """The embeddings kept for this model and key, else what `make` gives, kept from now on."""
    text = json.dumps([_identity(model), key])
    place = cache_folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.safetensors"
    found = _read(place)
    if found is not None:
        return found
    made = make()
    tensors = {f.name: t for f in fields(made) if (t := getattr(made, f.name)) is not None}
    kept = {n: t.detach().cpu().contiguous() for n, t in tensors.items()}
    with suppress(ParetuneError, OSError):  # a cache is no result: a run goes on without one
        write_bytes(place, save(kept, {DIGEST: _digest(kept)}))
    return made


def _identity(model: str) -> list[Any]:
    """A hub id, or a folder's files of its text side by name, size and time of change."""
    folder = Path(resolve_path(model))
    if not folder.is_dir():
        return [model]
    files = sorted(p for part in ("text_encoder*", "tokenizer*") for p in folder.glob(f"{part}/*"))
    return [str(folder.resolve()), *([str(p), p.stat().st_size, p.stat().st_mtime_ns] for p in files)]


def _read(place: Path) -> Conditions | None:
    """What is kept there; None where nothing is, or it is not what was kept."""
    try:
        with safe_open(str(place), "pt") as file:
            recorded = (file.metadata() or {}).get(DIGEST)
        tensors: dict[str, torch.Tensor] = load_file(place)
        if recorded != _digest(tensors):
            return None
        return Conditions(**tensors)  # type: ignore[arg-type]
    except (OSError, SafetensorError, TypeError):
        return None


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 of the names, types, shapes and bytes of tensors."""
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        total.update(tensor_bytes(tensor))
    return total.hexdigest()
