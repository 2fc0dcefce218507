"""Marks on the page where an expert seems to have found a way around its reward."""

from __future__ import annotations

from paretune.ops.signs import signs

from .gains import changes, signed
from .palette import method_look
from .read import Run


def warnings(run: Run) -> list[str]:
    """One line for each sign in an expert's metrics, and for each judge that falls as its reward rises."""
    told = [
        f"Sign of hacking: {stage}, expert {reward}, epoch {sign.epoch}: {sign.text}."
        for (stage, reward), rows in run.metrics.items()
        for sign in signs(rows)
    ]
    return [*told, *_apart(run)]


def _apart(run: Run) -> list[str]:
    """A line for each reward that got better than the base's as its judge got worse, beyond two errors."""
    told: list[str] = []
    for reward, judge in run.summary["judges"].items():
        first, others = "", list[str]()
        for method in run.summary["methods"]:
            if method == "base":
                continue
            better, worse = changes(run.summary, run.evaluation, method, [reward, judge])
            if (better.verdict, worse.verdict) != ("better", "worse"):
                continue
            label = method_look(method, run.rewards).label
            if first:
                others.append(label)
                continue
            first = (
                f"Sign of hacking: {label}: {reward} got better ({signed(better.absolute)}) and its "
                f"judge {judge} worse ({signed(worse.absolute)})"
            )
        if first:
            told.append(first + (f"; the same in: {', '.join(others)}." if others else "."))
    return told
