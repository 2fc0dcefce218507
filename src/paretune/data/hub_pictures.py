"""The input pictures of a dataset of the hub: its column "image" holds pictures, which are kept as files.

Prompts name pictures by their paths, so the bytes of every picture are written once, under their hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from paretune.files import write_bytes
from paretune.foreign.cache import cache_folder
from paretune.inputs.pictures import KEY


def with_picture_files(rows: Any) -> Iterator[dict[str, Any]]:
    """The rows of a dataset, with paths of files in the place of pictures. Other columns are unchanged."""
    from datasets import Image

    if not isinstance(rows.features.get(KEY), Image):
        yield from rows
        return
    for row in rows.cast_column(KEY, Image(decode=False)):
        yield {**row, KEY: None if row[KEY] is None else _path(row[KEY])}


def _path(picture: dict[str, Any]) -> str:
    """The file of a picture, {"bytes": .., "path": ..}, of which one may be None."""
    content = picture.get("bytes")
    if content is None:
        return str(Path(picture["path"]).absolute())
    suffix = Path(picture.get("path") or "").suffix or ".img"
    place = cache_folder("pictures") / f"{hashlib.sha256(content).hexdigest()}{suffix}"
    if not place.is_file():
        write_bytes(place, content)
    return str(place)
