"""What the user sees while a run works: one bar an expert, or JSON lines, or nothing."""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from .results import results

Event = dict[str, Any]


class Quiet:
    """Shows nothing."""

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def __call__(self, event: Event) -> None:
        """Take an event."""


class JsonLines(Quiet):
    """One JSON object a line on stdout, for machines."""

    def __call__(self, event: Event) -> None:
        """Print an event."""
        results().write(json.dumps(event) + "\n")
        results().flush()


class Bars:
    """A rich progress bar for every expert and every model that is measured."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[reward]}"),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            console=console,
        )
        self.bars: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self.progress.live.is_started:
            self.progress.stop()

    def __call__(self, event: Event) -> None:
        """Move a bar, or name the stage that begins."""
        if "stopping" in event:
            self.console.print("stopping at the next checkpoint (Ctrl-C again: at once) ...")
        elif "notice" in event:
            self.console.print(f"note: {event['notice']}", markup=False, highlight=False, soft_wrap=True)
        elif "stage" in event:
            self._stage(event)
        elif "folder" in event:
            name = event["folder"]
            if name not in self.bars:
                self.progress.start()  # not before there is a bar: an early mistake is one line alone
                self.bars[name] = self.progress.add_task(name, total=event["epochs"], reward="")
            reward = f"reward {event['reward']:.3f}" if "reward" in event else ""
            self.progress.update(self.bars[name], completed=event["update"], reward=reward)

    def _stage(self, event: Event) -> None:
        for bar in self.bars.values():
            self.progress.remove_task(bar)
        self.bars.clear()
        round_ = f" round {event['round']}" if "round" in event else ""
        method = f"{event['method']}, " if "method" in event else ""
        self.console.print(f"[bold]{method}{event['stage']}{round_}[/bold]{_agreement(event)}")


def _agreement(event: Event) -> str:
    """What a Reduce tells of its experts."""
    if "cosines" not in event:
        return ""
    cosines = ", ".join(f"{c:+.2f}" for c in event["cosines"])
    rho = "" if event["contraction"] is None else f", contraction {event['contraction']:.2f}"
    return f"  cosines of the experts {cosines}; spread {event['spread']:.3g}{rho}"


def make_progress(console: Console, quiet: bool, as_json: bool) -> Quiet | Bars:
    """The display that the flags ask for; with both, only the result is printed, as JSON."""
    if quiet:
        return Quiet()
    return JsonLines() if as_json else Bars(console)
