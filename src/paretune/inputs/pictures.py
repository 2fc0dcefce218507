"""The input picture of a prompt: how it is read and checked, and that digests know it by its content.

A prompt with an input picture is a `types.Pictured`: its text, and the path of the picture.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image, ImageOps

from ..types import ParetuneError, Pictured, Prompt

KEY = "image"  # of a prompt's record


def open_picture(path: str) -> Image.Image:
    """A picture as RGB, upright as its EXIF data say. Raises ParetuneError if it is missing or unreadable."""
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError:
        raise ParetuneError(f"the picture {path} does not exist") from None
    # Pillow raises SyntaxError for a damaged PNG file, and an error of its own for far too many pixels.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or "it is damaged, or no picture"
        raise ParetuneError(f"the picture {path} cannot be read: {reason}") from error


def picture_of(prompt: str) -> str | None:
    """The path of a prompt's input picture; None for a prompt without one."""
    return prompt.image if isinstance(prompt, Pictured) else None


def with_picture(prompt: Prompt, image: str) -> Prompt:
    """The prompt with an input picture, which its record names too. image: a path."""
    image = os.path.abspath(image)
    return Prompt(Pictured(prompt.text, image), {**prompt.metadata, KEY: image})


def prompt_identity(prompt: str) -> str | list[str]:
    """What digests know a prompt by: its text, and the SHA-256 of its picture."""
    image = picture_of(prompt)
    return prompt if image is None else [prompt, picture_hash(image)]


def record_identity(prompt: Prompt) -> list[Any]:
    """What digests know a prompt and its record by. The path of a picture is replaced by its SHA-256."""
    image, record = picture_of(prompt.text), dict(prompt.metadata)
    return [prompt.text, record if image is None else {**record, KEY: picture_hash(image)}]


def picture_hash(path: str) -> str:
    """The SHA-256 of a picture's file. Raises ParetuneError if it cannot be read."""
    try:
        now = os.stat(path)
        return _hash(path, now.st_size, now.st_mtime_ns)
    except OSError as error:
        raise ParetuneError(f"the picture {path} cannot be read: {error.strerror}") from error


@functools.lru_cache(maxsize=65536)
def _hash(path: str, size: int, mtime_ns: int) -> str:
    """The hash of a file with this size and time: several stages of a run ask for it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def first_unreadable(prompts: Sequence[Prompt]) -> tuple[int, str] | None:
    """The number of the first prompt whose picture cannot be read, from 0, and why; None if all can be."""
    for number, prompt in enumerate(prompts):
        image = picture_of(prompt.text)
        try:
            if image is not None:
                open_picture(image)
        except ParetuneError as error:
            return number, str(error)
    return None


@contextmanager
def blank_picture(height: int, width: int) -> Iterator[str]:
    """The path of a black picture of this size, which is there within the block."""
    with TemporaryDirectory() as folder:
        path = os.path.join(folder, "blank.png")
        Image.new("RGB", (width, height)).save(path)
        yield path
