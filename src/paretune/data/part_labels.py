"""Fields of a preference record with more than one score a sample: of rewards, of segments, of patches."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, cast

from paretune.types import ParetuneError


def check_text(text: str, where: str) -> None:
    """Raise ParetuneError, with the line, for a text that no encoder takes: with a control character, or half
    of a surrogate pair."""
    for character in text:
        if unicodedata.category(character) in {"Cc", "Cs"} and character not in "\n\t":
            code = f"U+{ord(character):04X}"
            raise ParetuneError(f"{where}: a text holds the control character {code}, which no model reads")


def judged_of(answers: Any) -> dict[str, tuple[float, ...]]:
    """The rewards' scores that `paretune pairs` notes beside each answer, as far as all answers have them."""
    if not isinstance(answers, list | tuple) or not answers:
        return {}
    rows: list[Mapping[str, Any]] = []
    for answer in cast("Sequence[Any]", answers):
        scores = cast("Mapping[str, Any]", answer).get("scores") if isinstance(answer, Mapping) else None
        rows.append(cast("Mapping[str, Any]", scores) if isinstance(scores, Mapping) else {})
    return {
        name: tuple(float(row[name]) for row in rows)
        for name in rows[0] if all(_number(row.get(name)) for row in rows)
    }  # fmt: skip


def read_segments(value: Any, samples: int, where: str) -> tuple[tuple[float, ...], ...] | None:
    """The scores of the segments of each sample. Raises ParetuneError, with the line, for a wrong shape."""
    if value is None:
        return None
    rows = _each(value, samples, "segments", where)
    if any(not isinstance(row, list | tuple) or not row for row in rows) or len({len(r) for r in rows}) > 1:
        raise ParetuneError(f'{where}: "segments" has the same number of scores for every sample')
    for row in rows:
        _finite(row, "segments", where)
    return tuple(tuple(float(v) for v in row) for row in rows)


def read_patches(
    value: Any, samples: int, where: str
) -> tuple[tuple[tuple[float, ...], ...] | None, ...] | None:
    """The grid of weights of each sample, or None for it. Raises ParetuneError, with the line."""
    if value is None:
        return None
    grids = _each(value, samples, "patches", where)
    if all(grid is None for grid in grids):
        raise ParetuneError(f'{where}: "patches" has no grid for any sample')
    return tuple(None if grid is None else _grid(grid, where) for grid in grids)


def _grid(grid: Any, where: str) -> tuple[tuple[float, ...], ...]:
    rows = cast("Sequence[Any]", grid) if isinstance(grid, list | tuple) else ()
    if not rows or any(not isinstance(r, list | tuple) or not r or len(r) != len(rows[0]) for r in rows):
        raise ParetuneError(f'{where}: a grid of "patches" is rows of equally many numbers')
    for row in rows:
        _finite(row, "patches", where)
        if not all(0 <= v <= 1 for v in row):
            raise ParetuneError(f'{where}: weights of "patches" are from 0 to 1')
    return tuple(tuple(float(v) for v in row) for row in rows)


def _each(value: Any, samples: int, name: str, where: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple) or len(cast("Sequence[Any]", value)) != samples:
        raise ParetuneError(f'{where}: "{name}" has one entry for each of the {samples} samples')
    return cast("Sequence[Any]", value)


def _finite(row: Sequence[Any], name: str, where: str) -> None:
    for value in row:
        if not _number(value):
            raise ParetuneError(f'{where}: "{name}" holds finite numbers, not {value!r:.40}')


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
