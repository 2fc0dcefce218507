"""Which devices a task gets. Devices are counted in the process that uses them, not in the one that plans."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnContext
from multiprocessing.sharedctypes import SynchronizedArray

from ..types import ParetuneError, Stopped

MOST = 64  # devices of one machine


class Leases:
    """The number of tasks that use each device of a machine. All processes of the machine share one object.

    kind: "cpu" or "cuda". A task gets the devices that the fewest other tasks use. If there are more tasks
    than devices, tasks of one device share it. A task of several devices waits until so many are free.
    """

    def __init__(
        self, kind: str, context: SpawnContext | None = None, count: Callable[[], int] | None = None
    ) -> None:
        self.kind = kind
        self._count = count or _gpus
        context = context or multiprocessing.get_context("spawn")
        self._users: SynchronizedArray[int] = context.Array("i", MOST)

    @contextmanager
    def take(
        self, wanted: int, should_stop: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[str, ...]]:
        """Take `wanted` different devices for the length of a block.

        Raises ParetuneError if there are fewer, and Stopped when `should_stop` says so while it waits.
        """
        if self.kind == "cpu":
            yield ("cpu",) * wanted
            return
        there = min(self._count(), MOST)
        if wanted > there:
            raise ParetuneError(f"a task needs {wanted} GPUs and this machine has {there}")
        users = self._users
        while not (chosen := self._least_used(wanted, there)):
            if should_stop():
                raise Stopped
            time.sleep(0.2)
        try:
            yield tuple(f"{self.kind}:{i}" for i in chosen)
        finally:
            with users.get_lock():
                for i in chosen:
                    users[i] -= 1

    def _least_used(self, wanted: int, there: int) -> list[int]:
        """Take the devices with the fewest users; [] where several are wanted and too few are free."""
        users = self._users
        with users.get_lock():
            chosen = sorted(sorted(range(there), key=lambda i: users[i])[:wanted])
            if wanted > 1 and any(users[i] for i in chosen):
                return []
            for i in chosen:
                users[i] += 1
        return chosen


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
