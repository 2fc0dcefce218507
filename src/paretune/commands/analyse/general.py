"""The run's own rewards before and after: what safety may have cost, of `paretune analyse safety`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...config import RunConfig
from ...ops.statistics import Figure, mean_figure
from ...records.labels import apart, prompt_key
from ...records.read import read_evaluation

Rows = Mapping[tuple[str, str, str], list[float]]  # reward, prompt set and prompt -> its values


def general_rewards(run: Path, config: RunConfig) -> dict[str, dict[str, Figure]]:
    """Every reward of base and final model on the held-out prompts, and what it changed prompt by prompt."""
    rows = apart(read_evaluation(run / "evaluation.jsonl"))
    method = config.methods[0]
    last = f"mapreduce@{config.rounds}" if method == "mapreduce" else method
    before, after = _final(rows, "base"), _final(rows, last)
    both = {key: [sum(after[key]) / len(after[key]) - sum(before[key]) / len(before[key])]
            for key in before if key in after}  # fmt: skip
    parts = {"base": before, "merged": after, "merged less base": both}
    return {f"general rewards, {name}": _figures(part) for name, part in parts.items() if part}


def _final(rows: list[dict[str, Any]], method: str) -> Rows:
    """The values of a method's final model at the recipe's weights."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        plain = not row.get("lattice") and row.get("kind", "reward") == "reward"
        if row["method"] == method and plain:
            key = row["reward"], row.get("prompt_set", row["reward"]), prompt_key(row)
            found.setdefault(key, []).append(row["value"])
    return found


def _figures(rows: Rows) -> dict[str, Figure]:
    """The mean of each reward, by prompt."""
    found: dict[str, Figure] = {}
    for name in dict.fromkeys(reward for reward, *_ in rows):
        own = [values for (reward, *_), values in rows.items() if reward == name]
        group = torch.tensor([i for i, values in enumerate(own) for _ in values])
        found[name] = mean_figure(torch.tensor([v for values in own for v in values]), group)
    return found
