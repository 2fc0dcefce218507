"""A deadline for code of paretune's own that runs in this process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Late(BaseException):
    """The time of a block is over. No `Exception`: code that catches those must not swallow it."""


@contextmanager
def within(seconds: float | None) -> Iterator[None]:
    """Raise `Late` in a block that takes longer than `seconds`.

    The timer is a signal, which only the main thread hears; in another thread, and for None, the block has
    all the time that it takes. A timer that was running goes on afterwards.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(number: int, frame: FrameType | None) -> None:
        raise Late

    handler = signal.signal(signal.SIGALRM, late)
    rest, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if handler is None else handler)
        if rest:
            signal.setitimer(signal.ITIMER_REAL, rest, interval)
