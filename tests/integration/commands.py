"""`paretune` as a user starts it: a process of its own."""

from __future__ import annotations

import subprocess
import sys

from tests.warm import warm_process


def command(*words: object, patch: str = "") -> list[str]:
    """`paretune WORDS`, with a line of Python before it that may break it on purpose."""
    code = f"import sys, os, signal\n{patch}\nfrom paretune.cli.app import main\nmain()"
    return [sys.executable, "-c", code, *map(str, words)]


def call(*words: object, patch: str = "") -> subprocess.CompletedProcess[str]:
    """Run `paretune WORDS` to its end, as a process that need not load the libraries again."""
    warm = None if patch else warm_process()
    if warm is not None and warm.fits():
        return warm.call([str(word) for word in words], timeout=300)
    return subprocess.run(command(*words, patch=patch), capture_output=True, text=True, timeout=300)
