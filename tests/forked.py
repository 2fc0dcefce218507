"""The process of rewards without a new start of torch, in place of what `paretune.rewards.process` starts.

A command that `warm` has started forks itself. The process of a test may have threads, which a fork does not
bear, so there `warm` forks its own. tests/unit starts the process as a user does.
"""

from __future__ import annotations

import atexit
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn


class Host:
    """What `paretune.rewards.process` needs of subprocess.Popen. look: the exit code, None while it runs."""

    def __init__(self, pid: int, look: Callable[[], int | None]) -> None:
        self.pid, self._look = pid, look
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and (code := self._look()) is not None:
            self.returncode = code
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired("the process of a reward", timeout or 0)
            time.sleep(0.001)
        return code


class PopenOrHost(subprocess.Popen):  # type: ignore[type-arg]
    """The process of rewards as a fork, and any other as ever."""

    start: ClassVar[Callable[[int, list[str], int], Any]]

    def __new__(cls, args: Any, *rest: Any, **options: Any) -> Any:
        known = isinstance(args, list) and "from paretune.rewards.hosting import main" in str(args[2:3])
        # After a process has used several threads of OpenMP, a fork of it may wait for them for ever.
        if known and options.get("env") is None and os.environ.get("OMP_NUM_THREADS") == "1":
            return cls.start(int(args[3]), json.loads(args[4]), int(args[5]))
        return super().__new__(cls)


def fork_here(handle: int, paths: list[str], parent: int) -> Host:
    """Fork this process, which has one thread."""
    pid = os.fork()
    if pid == 0:
        be_host(handle, 2, paths, parent)

    def look() -> int | None:
        try:
            ended, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:  # another thread has just seen its end
            return None
        return os.waitstatus_to_exitcode(status) if ended else None

    return Host(pid, look)


class PopenOrFork(PopenOrHost):
    """See `PopenOrHost`."""

    start = staticmethod(fork_here)


def be_host(handle: int, err: int, paths: list[str], parent: int) -> NoReturn:
    """Be as a new process of rewards is, as far as a reward can tell. See `hosting.main`."""
    try:
        import torch

        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for stream in (1, 2):
            os.dup2(err, stream)
        os.closerange(3, handle)
        os.closerange(handle + 1, os.sysconf("SC_OPEN_MAX"))
        atexit._clear()
        seed_again()
        torch.manual_seed(0)
        torch.set_grad_enabled(True)
        sys.path[:] = paths
        from paretune.rewards.hosting import main

        main(handle, parent)
    finally:
        os._exit(1)


def seed_again() -> None:
    """Forks would draw the same numbers."""
    import numpy as np

    random.seed()
    np.random.seed()
