"""The workers of an executor: actors that hold their share of the cluster from start to end."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...environment import own_version
from ...types import ParetuneError
from .cluster import Request
from .worker import Hello, Worker

CLOSING = 10.0  # seconds that workers have to end


@dataclass
class Hand:
    """One worker. waiting: the call whose answer is awaited: `hello`, or `poll` while it has a task.

    machine: where it is; "" until it has a place in the cluster. task: the number of its task. ticket: of the
    attempt, another for each. sees: folder of a run -> whether its machine sees that folder.
    """

    actor: Any
    waiting: Any
    machine: str = ""
    task: int | None = None
    ticket: int = 0
    sees: dict[Path, bool] = field(default_factory=dict[Path, bool])

    @property
    def idle(self) -> bool:
        """Whether it has a place and no task."""
        return bool(self.machine) and self.task is None

    def welcome(self, hello: Hello) -> None:
        """Take what the worker tells of itself. Raises ParetuneError for another version of paretune."""
        if hello.version != own_version():
            raise ParetuneError(
                f"{hello.machine} has paretune {hello.version}, and this machine has {own_version()}: "
                "install the same version on every machine of the cluster"
            )
        self.machine, self.waiting = hello.machine, None


class Crew:
    """All workers. Each begins to be one when the cluster has what it takes free."""

    def __init__(self, threads: int, device: str, request: Request) -> None:
        """request: what each of them takes of its machine. The others are those of `Worker`."""
        import ray

        self.request = request
        self.hands: list[Hand] = []
        self._args = (threads, device)
        kind: Any = ray.remote(Worker)
        self._kind = kind.options(
            num_cpus=request.cpus, num_gpus=request.gpus, max_concurrency=4, max_restarts=0,
            max_task_retries=0,
        )  # fmt: skip

    def grow(self, wanted: int) -> None:
        """Ask the cluster for workers until there are so many."""
        while len(self.hands) < wanted:
            actor = self._kind.remote(*self._args)
            self.hands.append(Hand(actor, actor.hello.remote()))

    def dismiss(self, hand: Hand) -> None:
        """Give a worker up."""
        import ray

        self.hands.remove(hand)
        ray.kill(hand.actor)

    def close(self, at_once: bool) -> None:
        """End all workers. at_once: do not wait for what they are doing."""
        import ray

        if not at_once:
            ends = [hand.actor.close.remote() for hand in self.hands if hand.machine]
            if ends:
                ray.wait(ends, num_returns=len(ends), timeout=CLOSING)
        for hand in list(self.hands):
            self.dismiss(hand)


def sees_root(hand: Hand, root: Path) -> bool:
    """Whether the machine of a worker sees the run's folder: then nothing of it needs to be sent."""
    import ray

    if root not in hand.sees:
        word = uuid.uuid4().hex
        probe = root.absolute() / f".ray-{os.getpid()}-{word[:8]}"
        try:
            probe.write_text(word)
            hand.sees[root] = ray.get(hand.actor.sees.remote(str(probe), word))
        finally:
            probe.unlink(missing_ok=True)
    return hand.sees[root]
