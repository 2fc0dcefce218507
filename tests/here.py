"""Whole runs in the process of the test: nothing starts torch again, and a stop comes where a test says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from paretune import run as running
from paretune.recipes import load_config
from paretune.types import Stopped
from tests.executing import InThisProcess

Event = dict[str, Any]


class Stopping(InThisProcess):
    """stop: called with every event of a task; where it says so, the run is stopped as by Ctrl-C."""

    def __init__(self, stop: Callable[[Event], bool]) -> None:
        self.stop, self.stopping = stop, False

    def map(self, function: Any, tasks: Sequence[Any], report: Callable[[Event], None]) -> list[Any]:
        """See `executors.base.Executor`."""

        def forward(event: Event) -> None:
            report(event)
            self.stopping = self.stopping or self.stop(event)

        results = []
        for task in tasks:
            results.append(function(task, forward, lambda: self.stopping, ("cpu",)))
            if self.stopping:
                raise Stopped
        return results


def run_here(
    recipe: Path, out: Path, patch: pytest.MonkeyPatch, stop: Callable[[Event], bool] = lambda _: False,
    resume: bool = False, page: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Run a recipe; the summary. Raises Stopped where `stop` said so. page: make the report too."""
    with patch.context() as within:
        within.setattr(running, "open_executor", lambda config, usual: Stopping(stop))
        if not page:
            within.setattr(running, "write_report", lambda out: None)
        return running.run(load_config(recipe), out, lambda _: None, resume)


def stop_at(
    recipe: Path, out: Path, patch: pytest.MonkeyPatch, folder: str, update: int
) -> None:
    """Begin a run, or go on with it, up to one event, at which it must stop."""
    with pytest.raises(Stopped):
        run_here(
            recipe, out, patch,
            lambda event: event.get("folder") == folder and event.get("update") == update, resume=True,
        )  # fmt: skip
