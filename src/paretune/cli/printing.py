"""How commands print: results on standard output, what is said beside them on standard error."""

from __future__ import annotations

import json
import math
import time
import unicodedata
from collections.abc import Callable
from typing import Any, cast

import typer
from rich.console import Console
from rich.markup import escape

from .results import results

console = Console(stderr=True)
EVERY = 3.0  # seconds between two lines of progress


def print_json(value: Any) -> None:
    """Indented, on stdout. NaN and infinity, for which JSON has no word, become null."""
    typer.echo(json.dumps(_finite(value), indent=1), file=results())


def print_line(value: Any) -> None:
    """The result after the lines of the progress: every line of stdout is JSON. See `print_json`."""
    typer.echo(json.dumps(_finite(value)), file=results())


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in cast("dict[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in cast("list[Any]", value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def shown(text: str) -> str:
    """A text for the terminal: one line, and no character that steers it."""
    return "".join(" " if unicodedata.category(c) in {"Cc", "Cs"} else c for c in text)


def print_error(message: str) -> None:
    """One line on stderr."""
    console.print(f"[red]error:[/red] {escape(shown(message))}", soft_wrap=True, highlight=False, markup=True)


def speaker(quiet: bool) -> Callable[[str], None]:
    """What says a line on stderr beside the result, and nothing with --quiet."""
    return (lambda _: None) if quiet else (lambda line: typer.echo(line, err=True))


def now_and_then(say: Callable[[str], None]) -> Callable[[str], None]:
    """Says a line of progress if the last one, or the start, was EVERY seconds ago; else leaves it out."""
    last = time.monotonic()

    def seldom(line: str) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY:
            last = time.monotonic()
            say(line)

    return seldom
