"""The protocol of an executor: `map(function, tasks)` returns the results in the order of the tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar


class Task(Protocol):
    """A piece of work, described by plain data."""

    @property
    def title(self) -> str:
        """What it does, for messages: "training round-1/experts/ocr"."""
        ...

    @property
    def devices(self) -> int:
        """How many devices it needs, 1 or more. Tasks share a CPU, so there any number means the CPU."""
        ...


T = TypeVar("T", bound=Task)
R = TypeVar("R")
Event = dict[str, Any]
Report = Callable[[Event], None]
Devices = Sequence[str]
# function(task, report, should_stop, devices) -> result. It runs in another process, so all of it must be
# picklable. devices: those that the task got, by torch's names on the machine where it runs ("cpu",
# "cuda:1"). The function raises types.Stopped after it was asked to stop and has saved its work.
TaskFunction = Callable[[T, Report, Callable[[], bool], Devices], R]


class Executor(Protocol):
    """Runs independent tasks. It is a context manager: at the end of its block all that it started ends."""

    @property
    def device(self) -> str:
        """The kind of device that its tasks compute on: "cpu" or "cuda"."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None: ...

    def map(self, function: TaskFunction[T, R], tasks: Sequence[T], report: Report) -> list[R]:
        """Run every task and return the results. `report` is called with their events as they arrive.

        Raises the first failure, or types.Stopped after Ctrl-C. In both cases the other tasks stop at their
        next checkpoint.
        """
        ...
