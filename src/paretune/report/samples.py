"""How the page shows one sample, depending on the kind of its file, and the scores of the sample."""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image

from paretune.records.labels import prompt_key
from paretune.types import ParetuneError

from .gains import number

# The longest side of an inlined picture; larger ones are shrunk to keep the page light.
PICTURE_SIZE = 256


def show(file: Path) -> dict[str, Any]:
    """The values for the template. kind: `words`, or `picture` or `clip` with a `uri`."""
    try:
        if file.suffix == ".txt":
            return {"kind": "words", "words": file.read_text("utf-8"), "uri": "", "pixels": False}
        if file.suffix == ".mp4":
            return {"kind": "clip", "words": "", "uri": _clip(file), "pixels": False}
        return {"kind": "picture", "words": "", **_picture(file)}
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # Pillow's, of PNG
        raise ParetuneError(
            f"{file} cannot be read as a sample; `paretune run ... --resume` copies it again"
        ) from error


def _uri(kind: str, content: bytes) -> Markup:
    return Markup(f"data:{kind};base64,{base64.b64encode(content).decode()}")


def _clip(file: Path) -> Markup:
    content = file.read_bytes()
    if not content:
        raise ValueError("it is empty")
    return _uri("video/mp4", content)


def _picture(file: Path) -> dict[str, Any]:
    """A picture as a data URI. Small pictures are not changed; the browser enlarges their pixels."""
    content, kind = file.read_bytes(), "png"
    with Image.open(io.BytesIO(content)) as picture:
        picture.load()  # fails for half a picture, which a browser would show without an error
        pixels = max(picture.size) <= 128
        if max(picture.size) > PICTURE_SIZE:
            small = picture.convert("RGB")
            small.thumbnail((PICTURE_SIZE, PICTURE_SIZE), Image.Resampling.LANCZOS)
            shrunk = io.BytesIO()
            small.save(shrunk, format="JPEG", quality=88)
            content, kind = shrunk.getvalue(), "jpeg"
    return {"uri": _uri(f"image/{kind}", content), "pixels": pixels}


def first_scores(evaluation: Sequence[dict[str, Any]]) -> dict[tuple[str, str, str], str]:
    """(method, prompt set, `prompt_key`) -> the scores of the first sample, which is shown, as text."""
    found: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for row in evaluation:
        if row.get("seed") == 0 and not row.get("lattice"):
            key = (row["method"], row.get("prompt_set", row["reward"]), prompt_key(row))
            found[key].append(f"{row['reward']} {number(row['value'])}")
    return {key: ", ".join(scores) for key, scores in found.items()}
