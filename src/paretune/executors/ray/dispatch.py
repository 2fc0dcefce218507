"""One call of the executor's `map`: tasks are given to idle workers until all have ended."""

from __future__ import annotations

import pickle
import re
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from ...types import ParetuneError, Stopped
from ..base import Movable, Report, Task, WorkerDied
from .crew import Crew, Hand, sees_root
from .parcels import Packer
from .watching import put
from .worker import News

TURN = 0.5  # seconds that the driver waits for news before it looks around
PATIENCE = 60.0  # seconds after which it says that the cluster has no place
STARTS = 3  # workers, beside the retries, that may die before they have a task


class Dispatch:
    """The tasks of one `map`. A step that Ctrl-C breaks off is simply done again: each can be repeated."""

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
        interrupted = False
        while self._todo or any(hand.task is not None for hand in self._crew.hands):
            try:
                self._step()
            except KeyboardInterrupt:
                if interrupted:  # a second Ctrl-C: do not wait for the checkpoint
                    raise
                interrupted = True
                self._halt()
                self._report({"stopping": True})
            except ParetuneError as error:  # of this machine: a full disk, a file that is gone
                self._failures.insert(0, error)
                self._halt()
                break
        if interrupted:
            raise Stopped
        # The other tasks were stopped because one had failed, so what they raise is not the reason.
        for failure in sorted(self._failures, key=lambda error: isinstance(error, Stopped)):
            raise failure
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
        awaited = {hand.waiting: hand for hand in self._crew.hands if hand.waiting is not None}
        ready, _ = ray.wait(list(awaited), num_returns=1, timeout=TURN) if awaited else ([], [])
        for reference in ready:
            self._take(awaited[reference])
        self._tell_of_waiting()

    def _give(self, hand: Hand) -> None:
        """Give the next task to an idle worker."""
        from ray.exceptions import RayActorError

        number = self._todo[0]
        task = self._tasks[number]
        try:
            sees = not isinstance(task, Movable) or sees_root(hand, task.luggage().root)
        except RayActorError as error:  # it died while it had nothing to do
            self._died(hand, str(error))
            return
        parcel = self._packer.pack(self._function, task, sees)
        hand.ticket += 1
        hand.actor.start.remote(hand.ticket, parcel, sees)
        hand.task, hand.waiting = number, hand.actor.poll.remote(hand.ticket)
        self._todo.popleft()

    def _take(self, hand: Hand) -> None:
        """Take the answer of a worker."""
        import ray
        from ray.exceptions import ObjectLostError, RayActorError, RayError

        answer: Any
        try:
            answer = ray.get(hand.waiting)
        except (RayActorError, ObjectLostError) as error:  # the answer may be lost with the machine
            self._died(hand, str(error))
            return
        except RayError as error:
            raise ParetuneError(f"Ray: {' '.join(str(error).split())[-300:]}") from error
        if hand.task is None:
            hand.welcome(answer)
            return
        self._note(hand, self._tasks[hand.task], answer)

    def _note(self, hand: Hand, task: Task, news: News) -> None:
        """Write what a task has written, pass on its events, and note its end."""
        if news.changes and isinstance(task, Movable):
            luggage = task.luggage()
            put(luggage.root / luggage.writes, news.changes)
        for event in news.events:
            self._report(event)
        if news.ended is None:
            hand.waiting = hand.actor.poll.remote(hand.ticket)
            return
        kind, value = pickle.loads(news.ended)
        number, hand.waiting = hand.task, None
        assert number is not None
        if kind == "failed" and isinstance(value, WorkerDied) and not self._halted:
            hand.task = None
            self._again(number, hand.machine, str(value).partition(";")[0])
            return
        hand.task = None
        if kind == "done":
            self._results[number] = value
        else:
            self._fail(_placed(value, hand.machine))

    def _died(self, hand: Hand, reason: str) -> None:
        """Replace a worker that died; its task goes on elsewhere from its last checkpoint."""
        number, machine = hand.task, hand.machine
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
            self._report({"notice": f"waiting for a worker: it takes {self._crew.request} of one machine"})


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
