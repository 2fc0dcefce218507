"""`paretune run --detach`: the same command as a process of its own, which lives on when the terminal ends.

What it tells is in RUN/run.log, one JSON object a line. `paretune status` and `paretune logs` read the run's
folder, so they work for every run, and on every machine that sees the folder.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..files import disk_errors
from ..stages.claim import last_holder
from ..types import ParetuneError

LOG = "run.log"
LOOK = 0.1  # seconds between two looks whether the run has begun


@dataclass(frozen=True)
class Detached:
    """A run that works on its own. log: the file that it writes; process: its number on this machine."""

    log: Path
    process: int


def detach(words: Sequence[str], out: Path) -> Detached:
    """Start `paretune WORDS` apart from this terminal, and wait until its run has begun.

    Args:
        words: the command, without --detach, with --json.
        out: the folder of its run.

    Raises:
        ParetuneError: the run does not begin; the line is the one that it ended with.
    """
    begun = (out / "config.yaml").exists()
    # Before a run has begun, its folder must be empty.
    log = out / LOG if begun else out.parent / f".{out.name}.{os.getpid()}.log"
    with disk_errors(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            start = file.tell()
            child = subprocess.Popen(
                [sys.executable, "-m", "paretune", *words], stdin=subprocess.DEVNULL, stdout=file,
                stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=_interruptible,
            )  # fmt: skip
    while last_holder(out) != str(child.pid) and child.poll() is None:
        time.sleep(LOOK)
    if child.poll():
        lines = log.read_bytes()[start:].decode(errors="replace").strip().splitlines()
        if not begun:
            log.unlink()
        raise ParetuneError(lines[-1].removeprefix("error: ") if lines else "the run ended as it began")
    if not begun:
        os.replace(log, out / LOG)
    return Detached(out / LOG, child.pid)


def _interruptible() -> None:
    """Take SIGINT, which a command that a script starts in the background ignores."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
