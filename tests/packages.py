"""A package that is installed for one test: its files, and a dist-info folder that names its entry points."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def install(
    site: Path, monkeypatch: pytest.MonkeyPatch, points: dict[str, list[str]], files: dict[str, str]
) -> None:
    """Install a package into the new folder `site`, for this process and those that it starts.

    points: group -> lines such as "mine = my_module:Name". files: module -> its text.
    """
    info = site / f"{site.name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {site.name}\nVersion: 1.0\n")
    sections = ["\n".join([f"[{group}]", *lines]) for group, lines in points.items()]
    (info / "entry_points.txt").write_text("\n\n".join(sections) + "\n")
    for name, text in files.items():
        (site / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()


def example(name: str) -> dict[str, str]:
    """One of the examples' files, as `install` takes it."""
    return {name: (EXAMPLES / f"{name}.py").read_text()}
