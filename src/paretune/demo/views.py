"""How the page shows a sample: one view for each kind of samples (`Medium.name`). It needs only the file."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from .markup import data_uri, figure, shown

SMALL = 256  # smaller pictures are enlarged without smoothing


@dataclass(frozen=True)
class View:
    """How samples of one kind are shown.

    draw: the bytes of a file, its title, the prompt and the file's name -> HTML. noun: the word for two
    samples. example: a prompt for a run whose prompt files no longer exist.
    """

    draw: Callable[[bytes, str, str, str], str]
    noun: str
    example: str


def picture(png: bytes, title: str, prompt: str, file: str) -> str:
    """An image."""
    data = data_uri("image/png", png)
    with Image.open(io.BytesIO(png)) as image:
        grain = ' class="pt-pixels"' if max(image.size) < SMALL else ""
    return figure(f'<img{grain} src="{data}" alt="{shown(title)}: {shown(prompt)}">', title, data, file)


def clip(mp4: bytes, title: str, prompt: str, file: str) -> str:
    """A video that plays in a loop until it is stopped."""
    data = data_uri("video/mp4", mp4)
    settings = "autoplay loop muted playsinline controls"
    inner = f'<video {settings} src="{data}" aria-label="{shown(title)}: {shown(prompt)}"></video>'
    return figure(inner, title, data, file)


def text(words: bytes, title: str, prompt: str, file: str) -> str:
    """An answer. Its lines are kept, and nothing in it is interpreted as markup."""
    answer = words.decode("utf-8").strip()
    inner = shown(answer) if answer else '<span class="pt-none">an empty answer</span>'
    settings = f'class="pt-words" dir="auto" tabindex="0" role="group" aria-label="{shown(title)}"'
    return figure(f"<div {settings}>{inner}</div>", title, data_uri("text/plain;charset=utf-8", words), file)


VIEWS = {
    "pictures": View(picture, "pictures", "a red circle"),
    "clips": View(clip, "clips", "a red circle moves left quickly"),
    "texts": View(text, "answers", "How do I clean the window?"),
}
