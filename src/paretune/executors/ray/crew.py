"""The workers of an executor: actors that hold their share of the cluster from start to end."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...environment import own_version
from ...types import ParetuneError
from .placing import Request, give_back, group_of, options_of
from .worker import Hello, Worker

CLOSING = 10.0  # seconds that workers have to end


@dataclass(frozen=True)
class Failed:
    """A failure of a process of several. machine: where. until: the time.monotonic() that others have."""

    error: BaseException
    machine: str
    until: float


@dataclass
class Hand:
    """One worker. waiting: the call whose answer is awaited: `hello`, or `poll` while it has a task.

    machine: where it is; "" until it has a place in the cluster. address: of its machine. task: the number of
    its task. ticket: of the attempt, another for each. sees: folder of a run -> whether its machine sees that
    folder. peers: the workers that share its tasks, which it leads. group: their placement group, if any.
    failed: how a process has failed whose cause another one may tell yet.
    """

    actor: Any
    waiting: Any
    machine: str = ""
    address: str = ""
    task: int | None = None
    ticket: int = 0
    sees: dict[Path, bool] = field(default_factory=dict[Path, bool])
    peers: tuple[Hand, ...] = ()
    group: Any = None
    failed: Failed | None = None

    @property
    def members(self) -> tuple[Hand, ...]:
        """It and its peers."""
        return (self, *self.peers)

    @property
    def idle(self) -> bool:
        """Whether it has a place and no task, and its peers too."""
        return self.task is None and all(hand.machine and hand.waiting is None for hand in self.members)

    def welcome(self, hello: Hello) -> None:
        """Take what the worker tells of itself. Raises ParetuneError for another version of paretune."""
        if hello.version != own_version():
            raise ParetuneError(
                f"{hello.machine} has paretune {hello.version}, and this machine has {own_version()}: "
                "install the same version on every machine of the cluster"
            )
        self.machine, self.address, self.waiting = hello.machine, hello.address, None


class Crew:
    """All workers. Each begins to be one when the cluster has what it takes free."""

    def __init__(self, threads: int, device: str, request: Request) -> None:
        """request: what each of them takes. The others are those of `Worker`."""
        import ray

        self.request = request
        self.hands: list[Hand] = []
        self._args = (threads, device)
        self._kind: Any = ray.remote(Worker)

    def change(self, request: Request) -> None:
        """Let the next tasks take `request`. Workers that hold something else are ended."""
        if request != self.request:
            self.release(self.hands)
            self.request = request

    def grow(self, wanted: int) -> None:
        """Ask the cluster for workers until there are so many; those that share a task count as one."""
        while len(self.hands) < wanted:
            group = group_of(self.request)
            members = [self._new(group, number) for number in range(self.request.workers)]
            leader = members[0]
            leader.peers, leader.group = tuple(members[1:]), group
            self.hands.append(leader)

    def _new(self, group: Any, number: int) -> Hand:
        options = options_of(self.request, group, number)
        actor = self._kind.options(
            **options, max_concurrency=4, max_restarts=0, max_task_retries=0
        ).remote(*self._args)  # fmt: skip
        return Hand(actor, actor.hello.remote())

    def dismiss(self, hand: Hand) -> None:
        """Give a worker up, with its peers."""
        import ray

        self.hands.remove(hand)
        for member in hand.members:
            ray.kill(member.actor)
        give_back(hand.group)

    def release(self, hands: Sequence[Hand]) -> None:
        """End workers that have no task."""
        import ray

        ends = [member.actor.close.remote() for hand in hands for member in hand.members if member.machine]
        if ends:
            ray.wait(ends, num_returns=len(ends), timeout=CLOSING)
        for hand in list(hands):
            self.dismiss(hand)

    def close(self, at_once: bool) -> None:
        """End all workers. at_once: do not wait for what they are doing."""
        if not at_once:
            self.release(self.hands)
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
