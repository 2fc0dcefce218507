"""Blank files in place of figures, for tests that look at the page and at no figure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def render_nothing(put: Callable[[Any, str, Any], object] = setattr) -> None:
    """Let figures be built, but write blank ones. put: sets an attribute, such as a test's `monkeypatch`."""
    from matplotlib.figure import Figure
    from PIL import Image

    def savefig(figure: Figure, file: Any, format: str, **_: object) -> None:
        if format == "png":
            Image.new("RGB", (1, 1)).save(file, "png")
        else:
            file.write('<svg viewBox="0 0 1 1"></svg>')

    put(Figure, "savefig", savefig)
