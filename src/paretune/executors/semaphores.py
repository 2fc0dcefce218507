"""Python's tracker of semaphores, when it was killed together with the workers."""

from __future__ import annotations

import os
import sys
import time
import warnings
from multiprocessing import resource_tracker

DYING = 0.2  # seconds in which a process that was killed may still take what is written to it


def keep_tracker() -> None:
    """Start the tracker anew, without a standard error, if it no longer runs; else do nothing.

    The tracker is a process beside the workers, so what kills all children of a run kills it too. Python
    then starts another by itself, which does not know the semaphores of this process and prints a traceback
    for each that the process gives back: they would hide the one line that says what happened.
    """
    time.sleep(DYING)
    sys.stderr.flush()
    told = os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)  # the new process inherits this one
        with warnings.catch_warnings(action="ignore"):
            resource_tracker.ensure_running()
    finally:
        os.dup2(told, 2)
        os.close(told)
        os.close(nothing)
