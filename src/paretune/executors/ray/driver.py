"""The executor `ray`: see the package's docstring, and docs/clusters.md for how a cluster is made."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from ...config import ExecutorConfig
from ..base import R, Report, T, TaskFunction
from .cluster import connect, device_of
from .crew import Crew
from .dispatch import Dispatch
from .placing import one_device, several_devices


class RayExecutor:
    """See `base.Executor`. It connects when it is made, so that a missing cluster is reported at once."""

    def __init__(self, workers: int, settings: ExecutorConfig) -> None:
        """Connect, and compare what tasks take with what the machines of the cluster have.

        Args:
            workers: the most tasks at a time; fewer run where the cluster has less free.
            settings: the recipe's; `address`, `devices_per_expert`, `cpus_per_expert` and `retries` are read
                by this executor alone.

        Raises:
            ParetuneError: Ray or its cluster is missing, or the cluster has not what one task takes.
        """
        self._workers, self._retries = workers, settings.retries
        self._connected = connect(settings.address)
        try:
            self.device = device_of(settings)
            self._one = one_device(settings, self.device)
            self._several = several_devices(settings, self.device)
            self._crew = Crew(settings.threads, self.device, self._one)
        except BaseException:
            self._disconnect()
            raise

    @classmethod
    def from_settings(cls, workers: int, settings: ExecutorConfig) -> Self:
        """The executor of a recipe."""
        return cls(workers, settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._crew.close(at_once=kind is not None and issubclass(kind, KeyboardInterrupt))
        self._disconnect()

    def map(self, function: TaskFunction[T, R], tasks: Sequence[T], report: Report) -> list[R]:
        """See `base.Executor.map`. A task whose worker dies goes on elsewhere, `retries` times at most."""
        self._crew.change(self._several if any(task.devices > 1 for task in tasks) else self._one)
        return Dispatch(self._crew, function, tasks, report, self._workers, self._retries).run()

    def _disconnect(self) -> None:
        if self._connected:
            import ray

            ray.shutdown()
            self._connected = False
