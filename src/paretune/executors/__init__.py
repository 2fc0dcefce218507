"""Where tasks run. Every executor gives the same answers; only the waiting differs."""

from __future__ import annotations

from ..config import RunConfig
from .base import Executor
from .local import LocalExecutor


def open_executor(config: RunConfig, usual: int, most: int | None = None) -> Executor:
    """The executor of a recipe: the one place that knows which executors there are.

    usual: tasks at a time where the recipe leaves it open. most: more at a time are of no use.
    Raises ParetuneError where the recipe asks for a device that is not there.
    """
    settings = config.executor
    workers = settings.workers or usual
    return LocalExecutor(workers if most is None else min(workers, most), settings.threads, settings.device)
