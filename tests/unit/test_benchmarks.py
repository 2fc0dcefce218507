"""Every benchmark can still be started: what it takes from the package and from its neighbours is there."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent.parent / "benchmarks"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_its_imports_are_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    before = set(sys.modules)
    try:
        assert runpy.run_path(str(path), run_name="not main")["__doc__"]
    finally:
        for name in {file.stem for file in FOLDER.glob("*.py")} & (set(sys.modules) - before):
            del sys.modules[name]
