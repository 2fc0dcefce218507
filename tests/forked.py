"""The process of rewards as a fork of a command that `warm` started. In a test itself it starts cold."""

from __future__ import annotations

import atexit
import json
import os
import random
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any


def seed_again() -> None:
    """Forks would draw the same numbers."""
    import numpy as np

    random.seed()
    np.random.seed()


class Forked:
    """A fork that does what `paretune.rewards.process` starts: what that needs of subprocess.Popen."""

    def __init__(self, handle: int, paths: list[str], parent: int) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._host(handle, paths, parent)
            finally:
                os._exit(1)

    def _host(self, handle: int, paths: list[str], parent: int) -> None:
        """Be as a new process is, as far as a reward can tell."""
        import torch

        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        os.closerange(3, handle)
        os.closerange(handle + 1, os.sysconf("SC_OPEN_MAX"))
        atexit._clear()
        seed_again()
        torch.manual_seed(0)
        torch.set_grad_enabled(True)
        sys.path[:] = paths
        from paretune.rewards.hosting import main

        main(handle, parent)

    def poll(self) -> int | None:
        return self._wait(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int:
        end = time.monotonic() + (timeout or 1e9)
        while (code := self._wait(os.WNOHANG if timeout else 0)) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("the process of a reward", timeout or 0)
            time.sleep(0.001)
        return code

    def _wait(self, flags: int) -> int | None:
        with suppress(ChildProcessError):  # another thread waits at the same time
            if self.returncode is None:
                pid, status = os.waitpid(self.pid, flags)
                self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


class PopenOrFork(subprocess.Popen):  # type: ignore[type-arg]
    """The process of rewards as a fork, and any other as ever.

    After a process has used several threads of OpenMP, a fork of it may wait for them for ever.
    """

    def __new__(cls, args: Any, *rest: Any, **options: Any) -> Any:
        known = isinstance(args, list) and "from paretune.rewards.hosting import main" in str(args[2:3])
        if known and options.get("env") is None and os.environ.get("OMP_NUM_THREADS") == "1":
            return Forked(int(args[3]), json.loads(args[4]), int(args[5]))
        return super().__new__(cls)
