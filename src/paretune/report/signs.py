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
    """Models whose reward got better than the base's while its judge got worse, beyond two errors both."""
    judges, told = run.summary["judges"], []
    for method in run.summary["methods"]:
        if method == "base":
            continue
        for reward, judge in judges.items():
            pair = changes(run.summary, run.evaluation, method, [reward, judge])
            if [change.verdict for change in pair] == ["better", "worse"]:
                label = method_look(method, run.rewards).label
                told.append(
                    f"Sign of hacking: {label}: {reward} got better ({signed(pair[0].absolute)}) and its "
                    f"judge {judge} worse ({signed(pair[1].absolute)})."
                )
    return told
