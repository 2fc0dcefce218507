"""The figures of `paretune analyse` in a run's folder, as rows for the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paretune.files import read_json
from paretune.types import ParetuneError

NAME = "analysis.json"
Row = tuple[str, str, str, str]  # figure, value, interval, count


def read_analyses(run: Path) -> list[tuple[str, list[Row]]]:
    """Every report of the run's analyses with its figures; [] without any.

    Raises ParetuneError for a file that is damaged.
    """
    file = run / NAME
    if not file.exists():
        return []
    try:
        analyses = read_json(file)["analyses"].values()
        return [
            (report, [_row(name, figure) for name, figure in figures.items()])
            for analysis in analyses
            for report, figures in analysis["reports"].items()
        ]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ParetuneError(f"{file} is damaged: delete it, and run `paretune analyse` again") from error


def _row(name: str, figure: dict[str, Any]) -> Row:
    value, low, high = (figure[key] for key in ("value", "low", "high"))
    shown = "–" if value is None else f"{value:.3f}"
    return name, shown, "–" if low is None else f"{low:.3f} .. {high:.3f}", f"{figure['count']:,}"
