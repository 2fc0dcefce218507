"""The protocol of an executor: `map(function, tasks)` returns the results in the order of the tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar, runtime_checkable


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


@dataclass(frozen=True)
class Luggage:
    """The files of a task, for an executor whose tasks run where the run's folder is not.

    root: the run's folder. reads: paths of folders that the task reads, below `root` or absolute. writes: the
    folder that it writes, below `root`. files: the files that the recipe names, as the recipe names them:
    absolute, or relative to the folder where the command was given. own: what every machine has of its own at
    that name, the base model. revision: the commit of a base model of the hub, None where it is unknown or
    the model is a folder.
    """

    root: Path
    reads: tuple[str, ...]
    writes: str
    files: tuple[str, ...]
    own: tuple[str, ...] = ()
    revision: str | None = None


@runtime_checkable
class Movable(Protocol):
    """A task that can run on a machine that does not see the run's folder."""

    def luggage(self) -> Luggage:
        """What it reads and writes."""
        ...

    def moved(self, root: Path) -> Any:
        """The same task for a copy of the run's folder."""
        ...

    def check_here(self, revision: str | None) -> None:
        """Raise ParetuneError if this machine does not have the base model that the run began with."""
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
