"""What a served reward is known by: a digest of its code, its options and its environment."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paretune.files import digest, sha256

from ..importing import files_of
from ..table import REWARDS, identity


def reward_digest(spec: str, options: Mapping[str, Any], environment: str | None = None) -> str:
    """The digest. environment: that of the requirements that the reward runs with, if it has its own.

    Of a file it covers the modules beside it, of an installed module the module's own file.
    """
    return digest([identity(spec), dict(options), environment, [sha256(file) for file in _files(spec)]])


def _files(spec: str) -> list[Path]:
    place = spec.rpartition(":")[0]
    if not place or spec in REWARDS:
        return []
    if place.endswith(".py"):
        return files_of(Path(place)) if Path(place).is_file() else []
    try:
        found = importlib.util.find_spec(place)
    except (ImportError, ValueError, AttributeError):  # only its own environment has it
        return []
    origin = Path(found.origin) if found is not None and found.origin else None
    return [origin] if origin is not None and origin.is_file() else []


def text_digest(text: bytes) -> str:
    """The SHA-256 of bytes."""
    return hashlib.sha256(text).hexdigest()
