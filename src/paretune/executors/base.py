"""What an executor is: `map(function, tasks)` -> results, in the order of the tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar


class Task(Protocol):
    """Something to do, as plain data."""

    @property
    def title(self) -> str:
        """What it does, for messages: "training round-1/experts/ocr"."""
        ...

    @property
    def devices(self) -> int:
        """How many devices it needs, 1 or more. On a CPU, which is shared, any number is the CPU."""
        ...


T = TypeVar("T", bound=Task)
R = TypeVar("R")
Event = dict[str, Any]
Report = Callable[[Event], None]
Devices = Sequence[str]
# function(task, report, should_stop, devices) -> result: runs in another process, so all of it must pickle.
# devices: the task's own, as torch names them where it runs ("cpu", "cuda:1"). It raises types.Stopped when
# it was asked to stop and has kept what it did.
TaskFunction = Callable[[T, Report, Callable[[], bool], Devices], R]


class Executor(Protocol):
    """Runs independent tasks. Use as a context manager: leaving it ends what it has started."""

    @property
    def device(self) -> str:
        """What its tasks compute on: "cpu" or "cuda"."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None: ...

    def map(self, function: TaskFunction[T, R], tasks: Sequence[T], report: Report) -> list[R]:
        """Run every task; `report` receives their events as they come.

        Raises the first failure, and types.Stopped after Ctrl-C; the other tasks then stop at their next
        checkpoint.
        """
        ...
