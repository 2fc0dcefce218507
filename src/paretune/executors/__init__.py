"""Where tasks run. Every executor gives the same answers; only the waiting differs.

Another package adds an executor by the entry point group below, as in docs/add-an-executor.md.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

from ..config import RunConfig
from ..foreign.entry_points import added, load_added
from ..types import ParetuneError
from .base import Executor

GROUP = "paretune.executors"
# `executor.kind` of a recipe -> file of this folder : class
EXECUTORS: dict[str, str] = {"local": "local:LocalExecutor", "ray": "ray.driver:RayExecutor"}


def open_executor(config: RunConfig, usual: int, most: int | None = None) -> Executor:
    """The executor of a recipe: the one place that knows which executors there are.

    usual: tasks at a time where the recipe leaves it open. most: more at a time are of no use.
    Raises ParetuneError where there is no such executor, or the recipe asks for a device that is not there.
    """
    settings, make = config.executor, find_executor(config.executor.kind)
    workers = settings.workers or usual
    workers = workers if most is None else min(workers, most)
    # One that reads more than three settings says so by this function.
    from_settings = getattr(make, "from_settings", None)
    return from_settings(workers, settings) if from_settings else \
        make(workers, settings.threads, settings.device)  # fmt: skip


def find_executor(kind: str) -> Callable[[int, int, str], Executor]:
    """The class of a kind: called with (workers, threads, device), it makes an `Executor`.

    Raises ParetuneError, one line with the nearest right name.
    """
    if kind in EXECUTORS:
        module, name = EXECUTORS[kind].split(":")
        return getattr(import_module(f".{module}", __package__), name)
    others = added(GROUP)
    if kind not in others:
        known = [*EXECUTORS, *others]
        near = difflib.get_close_matches(kind, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        raise ParetuneError(f"executor.kind: there is no executor {kind}; {hint}")
    found: Any = load_added("executor", others[kind])
    missing = [name for name in ("map", "__enter__", "__exit__") if not hasattr(found, name)]
    if not callable(found) or missing:
        what = f"has no {', '.join(missing)}" if missing else "cannot be called"
        raise ParetuneError(f"executor {kind} ({others[kind].value}) {what}: it must be an Executor's class")
    return cast("Callable[[int, int, str], Executor]", found)
