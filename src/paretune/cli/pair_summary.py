"""What `paretune pairs` tells of the lists that it has written, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def pair_lines(made: Mapping[str, Any]) -> list[str]:
    """A line about the best and the worst samples, and one about every two rewards.

    made: the summary of `make_answer_pairs` or `make_pairs`; the second has neither lengths nor sources.
    """
    parts: list[str] = []
    if made["mean_gap"] is not None:
        parts.append(f"mean gap {made['mean_gap']:.4g}")
    if "mean_characters" in made:
        best, worst = made["mean_characters"]
        parts.append(f"mean length {best:,.0f} and {worst:,.0f} characters")
    if "sources" in made:
        parts.append("from " + " against ".join(_named(side) for side in made["sources"]))
    lines = [f"best and worst: {'; '.join(parts)}"] if parts else []
    for row in made["agreement"]:
        first, second = row["rewards"]
        lines.append(f"{first} and {second} order {row['alike']:.0%} of {row['pairs']:,} pairs alike")
    return lines


def _named(sources: Mapping[str, int]) -> str:
    """The sources of one side with how many records have each, the most frequent first."""
    ordered = sorted(sources.items(), key=lambda item: -item[1])
    return ", ".join(f"{name or 'unnamed'} ({count:,})" for name, count in ordered)
