"""The command that drives a run on a Ray cluster is killed; the same command with --resume goes on."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from .commands import call, command
from .test_ray import FINAL, cluster

pytest.importorskip("ray")
__all__ = ["cluster"]
APART = "import paretune.executors.ray.dispatch as d\nd.sees_root = lambda hand, root: False"


@pytest.mark.slow
@pytest.mark.parametrize("patch", ["", APART], ids=["a folder that all see", "nothing shared"])
def test_killed_then_resumed_is_bit_identical(
    cluster: Any, recipe: Path, whole: Path, tmp_path: Path, patch: str
) -> None:
    """It is started again at once, while Ray may not have ended the workers of the killed one."""
    out, slow = tmp_path / "run", recipe.with_name("slow")
    words = ["run", recipe, "--out", out, "--quiet", "--set", "executor.kind=ray", "--set",
             f"executor.address={cluster.address}", "--set", "executor.workers=2"]  # fmt: skip
    finished = out / "round-1/experts/dark/manifest.json"
    slow.touch()
    try:
        with subprocess.Popen(command(*words, patch=patch), stderr=subprocess.PIPE, text=True) as process:
            end = time.monotonic() + 300
            while process.poll() is None and time.monotonic() < end:
                if finished.exists() and any(out.glob("round-1/experts/red/checkpoints/epoch-*")):
                    break
                time.sleep(0.01)
            process.kill()
            _, told = process.communicate()
    finally:
        slow.unlink()
    assert process.returncode == -signal.SIGKILL, told
    assert not (out / "round-1/experts/red/manifest.json").exists()
    stamp = finished.stat()
    done = call(*words, "--resume", patch=patch)
    assert done.returncode == 0, done.stderr
    assert (finished.stat().st_mtime_ns, finished.stat().st_ino) == (stamp.st_mtime_ns, stamp.st_ino)
    assert (out / FINAL).read_bytes() == (whole / FINAL).read_bytes()
    assert (out / "evaluation.jsonl").read_text() == (whole / "evaluation.jsonl").read_text()
