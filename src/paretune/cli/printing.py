"""How commands print: results on standard output, what is said beside them on standard error."""

from __future__ import annotations

import json
import time
import unicodedata
from collections.abc import Callable
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

from .results import results

console = Console(stderr=True)
EVERY = 3.0  # seconds between two lines of progress


def print_json(value: Any) -> None:
    """Indented, on stdout."""
    typer.echo(json.dumps(value, indent=1), file=results())


def print_line(value: Any) -> None:
    """The result after the lines of the progress: every line of stdout is one JSON object."""
    typer.echo(json.dumps(value), file=results())


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
