"""Where paretune keeps what it can make or download again: in PARETUNE_CACHE, else in ~/.cache/paretune."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """The folder of one kind of things in the cache. It need not exist."""
    cache = os.environ.get("PARETUNE_CACHE")
    if cache:
        return Path(cache) / kind
    try:
        home = Path.home()
    except RuntimeError:  # the user has no home, as in some containers
        home = Path(tempfile.gettempdir()) / f"paretune-{os.getuid()}"
    return home / ".cache" / "paretune" / kind
