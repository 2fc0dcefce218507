"""Standard output is for results. What libraries and rewards print goes to standard error.

`main` keeps the terminal's own output for us and points file descriptor 1, to which C code, child processes
and workers write, at standard error. With --json that holds for Python's `print` too: JSON is written to
`results()`, and nothing else is.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

_kept: TextIO | None = None


def results() -> TextIO:
    """Where results go, whatever `sys.stdout` is at the moment."""
    return _kept or sys.stdout


@contextmanager
def only_results(as_json: bool) -> Iterator[None]:
    """Keep what others print out of standard output, from here to the end of a command."""
    global _kept
    before, original = sys.stdout, _moved_aside(sys.stdout)
    own = before
    if original is not None:
        # Left open by the object: its number is closed below, when it is written out.
        own = open(original, "w", encoding=before.encoding, errors=before.errors, closefd=False)  # noqa: SIM115
    _kept, sys.stdout = own, sys.stderr if as_json else own
    try:
        yield
    finally:
        with suppress(BrokenPipeError):  # the reader has seen enough
            own.flush()
        sys.stdout, _kept = before, None
        if original is not None:
            with suppress(OSError, AttributeError):
                ctypes.CDLL(None).fflush(None)  # what C still holds was foreign too
            os.dup2(original, 1)
            os.close(original)


def _moved_aside(stdout: TextIO) -> int | None:
    """Point file descriptor 1 at standard error; the number of a copy of what it was.

    None where `stdout` is no file, or another one (in a test, say), and nothing was done.
    """
    try:
        if stdout.fileno() != 1:
            return None
        stdout.flush()
        original = os.dup(1)
        os.dup2(2, 1)
    except (OSError, ValueError):
        return None
    return original
