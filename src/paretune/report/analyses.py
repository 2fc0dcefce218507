"""The figures of `paretune analyse` in a run's folder, as rows for the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from paretune.files import read_json
from paretune.types import ParetuneError

NAME = "analysis.json"
Row = tuple[str, str, str, str]  # figure, value, interval, count
Token = tuple[str, float, float]  # text, credit, credit as a share of the answer's greatest one
T = TypeVar("T")


def read_analyses(run: Path) -> list[tuple[str, list[Row]]]:
    """Every report of the run's analyses, with what it was asked of, and its figures; [] without any.

    Raises ParetuneError for a file that is damaged.
    """
    return _each(run, lambda what, analysis: [
        (report + (f": {of}" if (of := what.partition(" ")[2]) else ""),
         [(name, *cells_of(figure)) for name, figure in figures.items()])
        for report, figures in analysis["reports"].items()
    ])  # fmt: skip


def read_credits(run: Path) -> list[tuple[str, float, list[Token]]]:
    """The answers whose tokens' credits an analysis kept, [] without any.

    Each has what the analysis was asked of, the sum of its credits, and its tokens.

    Raises ParetuneError for a file that is damaged.
    """
    return _each(run, lambda what, analysis: [
        (what.partition(" ")[2], float(answer["sum"]), marked(answer))
        for answer in analysis.get("tokens", ())
    ])  # fmt: skip


def _each(run: Path, read: Callable[[str, dict[str, Any]], list[T]]) -> list[T]:
    """What `read` finds in each analysis of the run's file, by its kind."""
    file = run / NAME
    if not file.exists():
        return []
    try:
        return [found for kind, own in read_json(file)["analyses"].items() for found in read(kind, own)]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ParetuneError(f"{file} is damaged: delete it, and run `paretune analyse` again") from error


def marked(answer: dict[str, Any]) -> list[Token]:
    """The tokens of an answer as texts, their credits, and these as shares of the greatest one."""
    most = max((abs(float(credit)) for credit in answer["credit"]), default=0.0) or 1.0
    return [
        (_text(token), float(credit), float(credit) / most)
        for token, credit in zip(answer["tokens"], answer["credit"], strict=True)
    ]


def _text(token: str) -> str:
    """A token of a vocabulary as a reader knows it: its marks of blanks and new lines are those."""
    return token.replace("Ġ", " ").replace("▁", " ").replace("Ċ", "↵")


def cells_of(figure: dict[str, Any]) -> tuple[str, str, str]:
    """Value, interval and count as words; – where there is nothing to tell."""
    value, low, high = (figure[key] for key in ("value", "low", "high"))
    interval = "–" if low is None else f"{low:.3f} .. {high:.3f}"
    return "–" if value is None else f"{value:.3f}", interval, f"{figure['count']:,}"
