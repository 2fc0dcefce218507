"""Foreign code prints what it likes; standard output is for results, so it goes to standard error."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.Lock()
_depth = 0
_kept: Any = None


@contextmanager
def prints_to_stderr() -> Iterator[None]:
    """What Python prints inside goes to standard error. May be nested, and entered by several threads."""
    global _depth, _kept
    with _lock:
        if _depth == 0:
            _kept, sys.stdout = sys.stdout, sys.stderr
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                sys.stdout, _kept = _kept, None
