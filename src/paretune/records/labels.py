"""What scores are called, so that those of different scorers are never taken for one.

A reward's scores on its own set go by the reward's name. A judge, or a reward that nothing trains on, may
have the same name, and one judge may judge several sets: then its scores are called after what it does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = dict[str, Any]
Scorer = tuple[str, str, str]  # prompt set, kind ("reward", "judge" or "untargeted"), name


def labels(scorers: Iterable[Scorer]) -> dict[Scorer, str]:
    """The names of those that cannot keep their own, from all scorers of a run. Names made here stay."""
    every = set(scorers)
    owners: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for prompt_set, kind, name in every:
        # A reward that nothing trains on is one scorer on all sets.
        owners[name].add((kind, "" if kind == "untargeted" else prompt_set))
    return {
        (prompt_set, kind, name): f"{name} (judge of {prompt_set})" if kind == "judge" else f"{name} ({kind})"
        for prompt_set, kind, name in every
        if kind != "reward" and len(owners[name]) > 1
    }


def apart(rows: Sequence[Row]) -> list[Row]:
    """An evaluation's rows, the scores of different scorers under different names."""
    renamed = labels(_scorer(row) for row in rows)
    if not renamed:
        return list(rows)
    return [{**row, "reward": renamed.get(_scorer(row), row["reward"])} for row in rows]


def judges_of(rows: Sequence[Row], told: Mapping[str, str]) -> dict[str, str]:
    """Prompt set -> its judge's label, by the rows; `told`, a summary's, where rows do not say it."""
    found = {row["prompt_set"]: row["reward"] for row in rows if row.get("kind") == "judge"}
    return {prompt_set: found.get(prompt_set, name) for prompt_set, name in told.items()}


def _scorer(row: Row) -> Scorer:
    """Rows of old versions name neither kind nor set: those are rewards'."""
    return row.get("prompt_set", row["reward"]), row.get("kind", "reward"), row["reward"]
