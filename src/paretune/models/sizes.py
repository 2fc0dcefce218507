"""The number of a model's parameters, without loading it."""

from __future__ import annotations

import math
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..types import ParetuneError
from .detect import place_of
from .family import by_hub_id


def parameters_of(path: str) -> float | None:
    """The parameters of a folder, from its files' headers, or of a published model, from its family's record.

    None for any other hub id.
    """
    folder = place_of(path)
    if not path or not folder.is_dir():
        known = by_hub_id().get(path)
        published = known.published.get(path) if known else None
        return None if published is None else 1e9 * published.billions["transformer"]
    return parameters_in(folder)


def parameters_in(folder: Path) -> float:
    """The parameters in a folder's safetensors files, from their headers."""
    total = 0
    for path in folder.glob("*.safetensors"):
        try:
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118 (safe_open is no mapping)
                    total += math.prod(file.get_slice(name).get_shape())
        except (SafetensorError, OSError) as error:
            raise ParetuneError(f"model.path: {path} {_damage(path)}") from error
    return float(total)


def _damage(path: Path) -> str:
    """What is wrong with a weights file that cannot be read, in words."""
    try:
        with path.open("rb") as file:
            pointer = file.read(24).startswith(b"version https://git-lfs")
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "is a pointer to its weights: run `git lfs pull` there" if pointer else "is damaged"
