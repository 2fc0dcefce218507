"""What each worker is doing, in shared memory, so that it can still be read after the worker has died."""

from __future__ import annotations

import os
from multiprocessing.context import SpawnContext

_SIZE = 512  # bytes for each worker: its process id, a space, and the title of its task


class Doing:
    """One line for each worker. The processes of an executor share one object."""

    def __init__(self, context: SpawnContext, workers: int) -> None:
        self._workers = workers
        self._memory = context.RawArray("c", workers * _SIZE)
        self._taken = context.Value("i", 0)
        self._place = -1

    def join(self) -> None:
        """Take a line. Every worker calls this once."""
        with self._taken.get_lock():
            self._place = self._taken.value % self._workers
            self._taken.value += 1

    def tell(self, title: str) -> None:
        """Write the title of a task into this worker's line."""
        line = f"{os.getpid()} {title}".encode()[: _SIZE - 1]
        begin = self._place * _SIZE
        self._memory[begin : begin + _SIZE] = line.ljust(_SIZE, b"\0")  # type: ignore[assignment]

    def of(self, process: int) -> str | None:
        """The last title that the worker with this process id wrote, or None."""
        for i in range(self._workers):
            line = bytes(self._memory[i * _SIZE : (i + 1) * _SIZE]).rstrip(b"\0")
            pid, _, title = line.decode(errors="replace").partition(" ")
            if pid == str(process):
                return title
        return None
