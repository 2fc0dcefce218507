"""What an executor is: `map(function, tasks)` -> results, in the order of the tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")
Event = dict[str, Any]
Report = Callable[[Event], None]
# function(task, report, should_stop) -> result: runs in another process, so all of it must pickle.
TaskFunction = Callable[[T, Report, Callable[[], bool]], R]


class Interrupted(Exception):
    """The user stopped the run; what was done is kept."""


class Executor(Protocol):
    """Runs independent tasks."""

    def map(self, function: TaskFunction[T, R], tasks: Sequence[T], report: Report) -> list[R]:
        """Run every task; `report` receives their events as they come. Raises the first failure."""
        ...
