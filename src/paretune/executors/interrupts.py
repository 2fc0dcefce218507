"""Ctrl-C while tasks run: a wish to stop at the next checkpoint, which breaks nothing off half done."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class Interrupts:
    """Notes the first Ctrl-C in its block, and raises KeyboardInterrupt at the second.

    Python raises KeyboardInterrupt between any two instructions: after half a message of a worker was read,
    the next one would begin in its middle. Where Python does not raise it (in another thread, or in a
    process that ignores Ctrl-C or handles it by itself), nothing is changed.
    """

    def __init__(self) -> None:
        self.pressed = False
        self._before: Any = None

    def __enter__(self) -> Self:
        ours = threading.current_thread() is threading.main_thread()
        if ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.pressed:
            raise KeyboardInterrupt
        self.pressed = True
