"""The trackers of one run together: each gets the same values, and one that fails gets no more."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .table import KINDS, open_tracker


class Board:
    """Open trackers by name."""

    def __init__(self, names: Sequence[str], run: str, number: str, folder: Path) -> None:
        """Start all of them.

        Args:
            names: of `table.KINDS`.
            run: what the run is called there.
            number: its id, the same when it is resumed.
            folder: for what they write.
        """
        self._open = {name: open_tracker(name, run, number, folder) for name in dict.fromkeys(names)}
        self._defined: set[str] = set()

    def recipe(self, values: Mapping[str, Any]) -> None:
        """The recipe: dotted keys and plain values."""
        kept = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in values.items()}
        self._each(lambda name, tracker: tracker.store_init_configuration(kept))

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Scalars under `group/`, at a step of this group."""

        def log(name: str, tracker: Any) -> None:
            named = {f"{group}/{key}": value for key, value in values.items()}
            if KINDS[name].stepped:
                tracker.log(named, step=step)
                return
            if group not in self._defined:  # each group has a step of its own, which the scalars name
                tracker.tracker.define_metric(f"{group}/*", step_metric=f"{group}/step")
            tracker.log({**named, f"{group}/step": step})

        self._each(log)
        self._defined.add(group)

    def pictures(self, group: str, files: Sequence[Path], step: int) -> None:
        """PNG files of one size under `group`."""
        if files:
            self._each(lambda name, tracker: KINDS[name].pictures(tracker, group, files, step))

    def close(self) -> None:
        """End all of them, so that what they hold is written."""
        self._each(lambda name, tracker: tracker.finish())
        self._open.clear()

    def _each(self, tell: Callable[[str, Any], None]) -> None:
        """Tell every tracker. A run does not end because somebody's server does."""
        for name, tracker in list(self._open.items()):
            try:
                tell(name, tracker)
            except Exception as error:
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                print(f"note: tracker {name} failed and is told no more: {reason}", file=sys.stderr)  # noqa: T201
                del self._open[name]
