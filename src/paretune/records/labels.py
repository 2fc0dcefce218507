"""Labels for scores, so that the scores of different scorers are never mixed up.

The scores of a reward on its prompt set have the reward's name. A judge, or a reward that no expert trains
on, may have the same name, and one judge may judge several sets. In that case the label says what the scorer
does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = dict[str, Any]
Scorer = tuple[str, str, str]  # prompt set, kind ("reward", "judge" or "untargeted"), name


def prompt_key(row: Mapping[str, Any]) -> str:
    """What tells the prompt of a row from others: its text, and the hash of its input picture if any."""
    return f"{row['prompt']}\n{row['image']}" if row.get("image") else row["prompt"]


def labels(scorers: Iterable[Scorer]) -> dict[Scorer, str]:
    """New labels for the scorers of a run whose names are ambiguous; the other scorers keep their names.

    Relabelling a second time changes nothing.
    """
    every = set(scorers)
    owners: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for prompt_set, kind, name in every:
        # An untargeted reward is one scorer on all sets.
        owners[name].add((kind, "" if kind == "untargeted" else prompt_set))
    return {
        (prompt_set, kind, name): f"{name} (judge of {prompt_set})" if kind == "judge" else f"{name} ({kind})"
        for prompt_set, kind, name in every
        if kind != "reward" and len(owners[name]) > 1
    }


def apart(rows: Sequence[Row]) -> list[Row]:
    """The rows of an evaluation, relabelled so that different scorers have different names."""
    renamed = labels(_scorer(row) for row in rows)
    if not renamed:
        return list(rows)
    return [{**row, "reward": renamed.get(_scorer(row), row["reward"])} for row in rows]


def judges_of(rows: Sequence[Row], recorded: Mapping[str, str]) -> dict[str, str]:
    """Prompt set -> label of its judge, from the rows, else from `recorded`, the judges of a summary."""
    labelled = {row["prompt_set"]: row["reward"] for row in rows if row.get("kind") == "judge"}
    return {prompt_set: labelled.get(prompt_set, name) for prompt_set, name in recorded.items()}


def _scorer(row: Row) -> Scorer:
    """The scorer of a row. Rows of old versions have neither kind nor set; those are of rewards."""
    return row.get("prompt_set", row["reward"]), row.get("kind", "reward"), row["reward"]
