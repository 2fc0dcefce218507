"""One call of the executor's `map`: tasks are given to idle workers until all have ended."""

from __future__ import annotations

import pickle
import re
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from ...types import ParetuneError, Part, Stopped, WorkerDied
from ..base import Movable, Report, Task
from ..interrupts import Interrupts
from .crew import Crew, Failed, Hand, sees_root
from .parcels import Packer
from .watching import put
from .worker import News

TURN = 0.5  # seconds that the driver waits for news before it looks around
PATIENCE = 60.0  # seconds after which it says that the cluster has no place
STARTS = 3  # workers, beside the retries, that may die before they have a task
GRACE = 15.0  # seconds in which a death may still be told that made another process fail


class Dispatch:
    """The tasks of one `map`."""

    def __init__(
        self, crew: Crew, function: Any, tasks: Sequence[Task], report: Report, workers: int, retries: int
    ) -> None:
        """See `base.Executor.map`; workers: tasks at a time, retries: deaths that a task survives."""
        import ray

        self._crew, self._function, self._tasks, self._report = crew, function, tasks, report
        self._workers, self._retries = workers, retries
        self._todo = deque(range(len(tasks)))
        self._deaths = [0] * len(tasks)
        self._lost_starts = 0
        self._results: dict[int, Any] = {}
        self._failures: list[BaseException] = []
        self._halted = False
        self._packer = Packer(ray.put)
        self._begun, self._told = time.monotonic(), False

    def run(self) -> list[Any]:
        """All results, in the order of the tasks. Raises the first failure, or Stopped after Ctrl-C."""
        told = False
        with Interrupts() as interrupts:
            while self._todo or any(hand.task is not None for hand in self._crew.hands):
                try:
                    self._step()
                except ParetuneError as error:  # of this machine: a full disk, a file that is gone
                    self._failures.insert(0, error)
                    self._halt()
                    break
                if interrupts.pressed and not told:
                    told = True
                    self._halt()
                    self._report({"stopping": True})
        if interrupts.pressed:
            raise Stopped
        # The other tasks were stopped because one had failed, so what they raise is not the reason.
        for failure in sorted(self._failures, key=lambda error: isinstance(error, Stopped)):
            raise failure
        self._release()
        return [self._results[number] for number in range(len(self._tasks))]

    def _step(self) -> None:
        """Give out what can be given, then wait for news and take it."""
        import ray

        unfinished = len(self._todo) + sum(hand.task is not None for hand in self._crew.hands)
        if not self._halted:
            self._crew.grow(min(self._workers, unfinished))
            for hand in [hand for hand in self._crew.hands if hand.idle]:
                if self._todo:
                    self._give(hand)
            self._release()
        awaited = {
            member.waiting: (hand, member)
            for hand in self._crew.hands for member in hand.members if member.waiting is not None
        }  # fmt: skip
        ready, _ = ray.wait(list(awaited), num_returns=1, timeout=TURN) if awaited else ([], [])
        for reference in ready:
            self._take(*awaited[reference])
        for hand in list(self._crew.hands):
            if hand.failed is not None and time.monotonic() > hand.failed.until:
                self._end(hand, hand.failed.machine, hand.failed.error)
        self._tell_of_waiting()

    def _release(self) -> None:
        """Give several devices back that no task needs any more. Workers of one wait for the next tasks."""
        if not self._todo and self._crew.request.devices > 1:
            self._crew.release([hand for hand in self._crew.hands if hand.task is None])

    def _give(self, hand: Hand) -> None:
        """Give the next task to an idle worker. Those that share it begin when it says so (`_meet`)."""
        from ray.exceptions import RayActorError

        hand.ticket += 1
        part = Part(0, len(hand.members), hand.address) if hand.peers else None
        try:
            self._start(hand, self._todo[0], hand.ticket, part)
        except RayActorError as error:  # it died while it had nothing to do
            self._died(hand, hand, str(error))
            return
        hand.task = self._todo.popleft()

    def _start(self, member: Hand, number: int, ticket: int, part: Part | None) -> None:
        """Start a task, or a part of it, on a worker."""
        task = self._tasks[number]
        sees = not isinstance(task, Movable) or sees_root(member, task.luggage().root)
        parcel = self._packer.pack(self._function, task, sees)
        member.actor.start.remote(ticket, parcel, sees, part)
        member.waiting = member.actor.poll.remote(ticket)

    def _meet(self, hand: Hand, number: int, port: int) -> None:
        """Start the other parts of a task, whose leader waits for them at a port."""
        from ray.exceptions import RayActorError

        for rank, peer in enumerate(hand.peers, start=1):
            try:
                part = Part(rank, len(hand.members), hand.address, port)
                self._start(peer, number, hand.ticket, part)
            except RayActorError as error:
                self._died(hand, peer, str(error))
                return

    def _take(self, hand: Hand, member: Hand) -> None:
        """Take the answer of a worker, or of a peer of it."""
        import ray
        from ray.exceptions import ObjectLostError, RayActorError, RayError

        answer: Any
        try:
            answer = ray.get(member.waiting)
        except (RayActorError, ObjectLostError) as error:  # the answer may be lost with the machine
            self._died(hand, member, str(error))
            return
        except RayError as error:
            raise ParetuneError(f"Ray: {' '.join(str(error).split())[-300:]}") from error
        if not member.machine:
            member.welcome(answer)
        else:
            self._note(hand, member, answer)

    def _note(self, hand: Hand, member: Hand, news: News) -> None:
        """Write what a task has written, pass on its events, and note its end. Peers only end."""
        number = hand.task
        if member is hand and number is not None:
            task = self._tasks[number]
            if news.changes and isinstance(task, Movable):
                luggage = task.luggage()
                put(luggage.root / luggage.writes, news.changes)
            for event in news.events:
                if "meeting" in event:
                    self._meet(hand, number, event["meeting"])
                else:
                    self._report(event)
        if hand not in self._crew.hands:
            return
        if news.ended is None:
            member.waiting = member.actor.poll.remote(hand.ticket)
            return
        member.waiting = None
        kind, value = pickle.loads(news.ended)
        if kind == "done" and member is hand and number is not None:
            hand.task, self._results[number] = None, value
        elif kind == "failed" and hand.task is not None:
            self._failed(hand, member, value)

    def _failed(self, hand: Hand, member: Hand, error: BaseException) -> None:
        """Note that a task's process has failed. One of several fails also because another has died."""
        if hand.peers and type(error) is RuntimeError:
            hand.failed = hand.failed or Failed(error, member.machine, time.monotonic() + GRACE)
        elif member is hand or not isinstance(error, Stopped):  # peers stop with their leader
            self._end(hand, member.machine, error)

    def _end(self, hand: Hand, machine: str, error: BaseException) -> None:
        """End the attempt of a task by an error; begin another if a process was killed."""
        number, hand.task = hand.task, None
        assert number is not None
        if hand.peers:
            self._crew.dismiss(hand)
        if isinstance(error, WorkerDied) and not self._halted:
            self._again(number, machine, str(error).partition(";")[0])
        else:
            self._fail(_placed(error, machine))

    def _died(self, hand: Hand, member: Hand, reason: str) -> None:
        """Replace a worker that died; its task goes on elsewhere from its last checkpoint."""
        number, machine = hand.task, member.machine
        self._crew.dismiss(hand)
        reason = " ".join(reason.split())
        if number is None:
            self._lost_starts += 1
            cannot = not machine and "import" in reason
            if cannot or self._lost_starts > self._retries + STARTS:
                self._fail(ParetuneError(_start_failure(reason)))
        elif self._halted:
            self._fail(Stopped())
        else:
            self._again(number, machine, "its machine or its worker is gone")

    def _again(self, number: int, machine: str, reason: str) -> None:
        title = self._tasks[number].title
        self._deaths[number] += 1
        if self._deaths[number] > self._retries:
            self._fail(ParetuneError(
                f"{title}: its worker died {self._deaths[number]} times, at last on {machine} ({reason}); "
                "resume, or set executor.retries higher"
            ))  # fmt: skip
            return
        self._report({"notice": f"{title} goes on from its last checkpoint; on {machine}: {reason}"})
        self._todo.append(number)

    def _fail(self, error: BaseException) -> None:
        self._failures.append(error)
        if not self._halted:
            self._halt()

    def _halt(self) -> None:
        """Give out nothing more, and ask the running tasks to stop at their next checkpoint."""
        self._halted = True
        self._todo.clear()
        for hand in self._crew.hands:
            if hand.task is not None:
                hand.actor.stop.remote(hand.ticket)

    def _tell_of_waiting(self) -> None:
        placed = any(hand.machine for hand in self._crew.hands)
        if not placed and not self._told and time.monotonic() - self._begun > PATIENCE:
            self._told = True
            request = self._crew.request
            where = f"{request.devices} times" if request.dealt else "of one machine"
            self._report({"notice": f"waiting for a worker: it takes {request} {where}"})


def _placed(error: BaseException, machine: str) -> BaseException:
    """A mistake about a base model, with the machine that has it."""
    told = str(error)
    if type(error) is ParetuneError and told.startswith(("model.path:", "executor.device")):
        return ParetuneError(f"{machine}: {told}")
    return error


def _start_failure(reason: str) -> str:
    errors = re.findall(r"\w+Error: [^\n]*", reason)
    return (
        "the workers do not start; has every machine of the cluster the same paretune in the Python that Ray "
        f"was started with? Ray says: {(errors or [reason])[-1][-300:]}"
    )
