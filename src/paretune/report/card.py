"""The reward card of a run's page: what its rewards and judges said about the base's evaluated samples.

Reliability and cost are those that the run noted when it measured the base (`stages.reliability`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from paretune.ops.reward_card import Scored, card, unreliable
from paretune.records.labels import labels, prompt_key

from .gains import higher_is_better, number
from .palette import method_look
from .read import Run

# Of a scorer: its key in the card, the title of its column, and what stands below the title.
COLUMNS = (
    ("mean", "mean", ""), ("std", "spread", "std"), ("at_low", "at low", "end of the range"),
    ("at_high", "at high", "end of the range"), ("same_groups", "same", "prompts without differences"),
    ("within", "within", "prompts, of the variance"), ("again", "again", "change of the same sample"),
    ("jpeg", "JPEG", "correlation after it"), ("flip", "flip", "correlation after it"),
    ("space", "blank", "correlation after it"), ("ms", "cost", "ms a sample"),
)  # fmt: skip
NUMBERS, SHARES = {"mean", "std", "again", "ms"}, {"at_low", "at_high", "same_groups", "within"}
NONE = "–"


def reward_card(run: Run) -> dict[str, Any] | None:
    """The tables and lines of the page; None where the base was not measured."""
    rows = [row for row in run.evaluation if row["method"] == "base" and not row.get("lattice")]
    if not rows or not run.summary:
        return None
    keys = [(row.get("prompt_set", ""), prompt_key(row), row.get("seed", 0)) for row in rows]
    place = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    prompts = {key[:2]: None for key in place}
    number_of = {prompt: i for i, prompt in enumerate(prompts)}
    groups = np.array([number_of[key[:2]] for key in place])
    names = list(dict.fromkeys(row["reward"] for row in rows))
    values = {name: np.full(len(place), math.nan) for name in names}
    for key, row in zip(keys, rows, strict=True):
        values[row["reward"]][place[key]] = row["value"]
    made = card([_scored(run, name, values[name]) for name in names], groups)
    _steady(run, made)
    columns = [c for c in COLUMNS if any(own.get(c[0]) is not None for own in made["scorers"].values())]
    lines = [_line(name, own, [key for key, *_ in columns]) for name, own in made["scorers"].items()]
    return {
        **made, "columns": columns, "lines": lines, "cells": _cells(made), "normalised": _normalised(run),
        "alone": len(place) == len(prompts), "steady": bool(run.reliability),
    }  # fmt: skip


def _scored(run: Run, name: str, values: np.ndarray) -> Scored:
    summary, judged = run.summary, {judge: reward for reward, judge in run.summary["judges"].items()}
    low, high = summary["ranges"].get(name, (None, None))
    kind = "reward" if name in summary["rewards"] else "judge" if name in judged else "untargeted"
    return Scored(
        name, values, -math.inf if low is None else low, math.inf if high is None else high,
        higher_is_better(summary, name), kind, judged.get(name, ""),
    )  # fmt: skip


def _steady(run: Run, made: dict[str, Any]) -> None:
    """Add how reliable scorers are and what they cost, and a line about each that is not reliable."""
    renamed = labels((row["prompt_set"], row["kind"], row["reward"]) for row in run.reliability)
    for row in run.reliability:
        name = str(renamed.get((row["prompt_set"], row["kind"], row["reward"]), row["reward"]))
        if (own := made["scorers"].get(name)) is None:
            continue
        found = row["reliability"]
        own |= {key: at["correlation"] for key, at in found.items()}
        own["again"] = found["again"]["change"] if "again" in found else None
        own["ms"] = None if row["seconds"] is None else 1000 * row["seconds"]
        made["notes"] += unreliable(name, found)


def _line(name: str, own: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    cells = [_cell(key, own.get(key)) for key in keys]
    return {"name": name, "kind": f"judge of {own['of']}" if own["of"] else own["kind"], "cells": cells}


def _cell(key: str, value: float | None) -> str:
    if value is None:
        return NONE
    return number(value) if key in NUMBERS else f"{value:.0%}" if key in SHARES else f"{value:+.2f}"


def _normalised(run: Run) -> dict[str, Any] | None:
    """The table of normalised means, where the recipe normalises rewards."""
    found = run.summary.get("normalised")
    if not found:
        return None
    lines = [
        (method_look(method, run.rewards).label, [number(means.get(name)) for name in found["ways"]])
        for method, means in found["methods"].items()
    ]
    return {"ways": list(found["ways"].items()), "lines": lines}


def _cells(made: dict[str, Any]) -> list[tuple[str, list[str]]]:
    rows = zip(made["names"], made["correlation"], strict=True)
    return [(name, [NONE if v is None else f"{v:+.2f}" for v in row]) for name, row in rows]
