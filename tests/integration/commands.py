"""`paretune` as a user starts it: a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.warm import Begun, warm_process


def command(*words: object, patch: str = "") -> list[str]:
    """`paretune WORDS`, with a line of Python before it that may break it on purpose."""
    code = f"import sys, os, signal\n{patch}\nfrom paretune.cli.app import main\nmain()"
    return [sys.executable, "-c", code, *map(str, words)]


def begin(
    *words: object, patch: str = "", environment: Mapping[str, str] | None = None,
    folder: Path | None = None, drawn: bool = False,
) -> Begun:  # fmt: skip
    """Start `paretune WORDS`, as a process that need not load the libraries again. Wait for it.

    patch: lines of Python before it that may break it on purpose. environment and folder: by default the
    current ones. drawn: whether the figures of a report are rendered.
    """
    given = [str(word) for word in words]
    environment, folder = environment or os.environ, folder or Path.cwd()
    warm = warm_process()
    if warm is not None and warm.fits(environment):
        return warm.begin(given, patch, environment, folder, drawn)
    streams = Path(tempfile.mkdtemp())
    with (streams / "out").open("wb") as out, (streams / "err").open("wb") as err:
        process = subprocess.Popen(
            command(*given, patch=patch), stdout=out, stderr=err, env=environment, cwd=folder,
            process_group=0,
        )  # fmt: skip
    return Begun(given, streams, process.pid, process.poll)


def call(
    *words: object, patch: str = "", environment: Mapping[str, str] | None = None,
    folder: Path | None = None, drawn: bool = False,
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """Run `paretune WORDS` to its end; see `begin`."""
    running = begin(*words, patch=patch, environment=environment, folder=folder, drawn=drawn)
    return running.wait(timeout=300)
