"""A whole run with a copy elsewhere: killed, and gone on with from the copy alone, in another folder."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from paretune.commands.mirror import INDEX

from .commands import begin, call
from .test_ray import FINAL

pytestmark = pytest.mark.slow


def _files(folder: Path) -> dict[str, bytes]:
    """The files of a folder that a copy has, by relative name: no lock, nothing unfinished, no index."""
    names = {path: path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {
        name.as_posix(): path.read_bytes() for path, name in names.items()
        if name.name != INDEX and not any(part.startswith(".") for part in name.parts)
    }  # fmt: skip


def test_a_run_goes_on_from_its_copy_alone(recipe: Path, whole: Path, tmp_path: Path) -> None:
    first, second, copy = (tmp_path / name for name in ("first", "second", "copy"))
    words = ["run", recipe, "--quiet", "--mirror", f"file://{copy}"]
    done_there = "round-1/experts/red/manifest.json"
    process, end = begin(*words, "--out", first), time.monotonic() + 300
    while process.poll() is None and time.monotonic() < end:
        if (copy / INDEX).exists() and done_there in json.loads((copy / INDEX).read_text()):
            break
        time.sleep(0.01)
    process.kill()
    killed = process.wait(timeout=10)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (copy / FINAL).exists()
    first.rename(tmp_path / "gone")
    trained = (copy / done_there).read_bytes()
    done = call(*words, "--out", second)
    assert done.returncode == 2
    assert "holds a run already; continue it with --resume, or choose another --mirror" in done.stderr
    assert not second.exists()
    done = call(*words, "--out", second, "--resume")
    assert done.returncode == 0, done.stderr
    assert (second / done_there).read_bytes() == trained  # its time of training is in it
    assert (second / FINAL).read_bytes() == (whole / FINAL).read_bytes()
    assert (second / "evaluation.jsonl").read_text() == (whole / "evaluation.jsonl").read_text()
    held = _files(copy)
    assert held == _files(second)
    assert sorted(held) == json.loads((copy / INDEX).read_text())
