"""The input pictures that visitors choose: checked, and kept in a temporary folder while the page is served.

The page shrinks a picture in the browser and sends it as a data URI, so that no upload is needed. Rewards
read pictures as files, so each is written under its hash. Only the last few are kept.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from ..files import write_bytes
from ..inputs.pictures import open_picture
from ..types import ParetuneError
from .asked import text

KEPT = 64
MOST_SIDE = 1024  # pixels, as picker.js shrinks pictures: a larger one could keep the machine busy
LARGEST = 1 << 20  # characters of a data URI
_URI = re.compile(r"data:image/(?:png|jpeg|webp);base64,([A-Za-z0-9+/]+=*)\Z")
WRONG = "the input picture cannot be read: choose a PNG, JPEG or WebP file"


class Inputs:
    """The pictures of all visitors."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="paretune-demo-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)  # at exit, too
        self._kept: dict[str, None] = {}  # names, the oldest first

    def keep(self, value: Any) -> str:
        """The path of a picture that a visitor sent as a data URI; "" for none. Raises ParetuneError."""
        uri = text(value, "input picture", LARGEST) if value is not None else ""
        if not uri:
            return ""
        content = _decoded(uri)
        name = f"{hashlib.sha256(content).hexdigest()}.png"
        place = self._folder / name
        self._kept.pop(name, None)
        self._kept[name] = None
        write_bytes(place, content)
        while len(self._kept) > KEPT:
            oldest = next(iter(self._kept))
            del self._kept[oldest]
            (self._folder / oldest).unlink(missing_ok=True)
        return str(place)


def small_png(image: str, longest: int = 512) -> bytes:
    """A picture file as a PNG of at most `longest` pixels a side, for the page."""
    picture, file = open_picture(image), io.BytesIO()
    picture.thumbnail((longest, longest))
    picture.save(file, "PNG")
    return file.getvalue()


def _decoded(uri: str) -> bytes:
    """The picture of a data URI as the bytes of a PNG: nothing but its pixels is kept."""
    match = _URI.match(uri)
    if match is None:
        raise ParetuneError(WRONG)
    try:
        with Image.open(io.BytesIO(base64.b64decode(match[1], validate=True))) as picture:
            if max(picture.size) > MOST_SIDE:
                raise ParetuneError(f"the input picture has more than {MOST_SIDE} pixels a side")
            file = io.BytesIO()
            picture.convert("RGB").save(file, "PNG")
            return file.getvalue()
    except (binascii.Error, UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise ParetuneError(WRONG) from error
