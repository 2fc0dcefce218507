"""The plots of a run, each with its section and a caption that explains how to read it."""

from __future__ import annotations

import math
import re
from functools import partial
from itertools import combinations
from typing import Any

from . import curves, fronts
from .canvas import Plot
from .gains import Change, aligned_method, changes, directed, paired_changes
from .palette import method_look
from .preferences import preference_plots
from .read import Run

Means = dict[str, float]  # by reward

_FRONT_ALL = (
    "All rewards at once. A method above the base line everywhere is better in every reward; one "
    "that dips below it pays for its gains. Each axis has its own scale; that of a cost is upside down."
)
_TAX = (
    "Change of each reward (column) against base, with its standard error, after each expert alone "
    "and, in the last row, after Reduce."
)
_LEARNING = (
    "The expert of {}: mean reward of its own samples (thick: smoothed), and the KL to its anchor "
    "if it paid one. Dotted: a new round, so a fresh adapter."
)
_CONTRACTION = (
    "The largest distance of an expert to their mean. A ratio below one says that the experts "
    "agree more from round to round."
)
_COSINES = "Round {}: cosines between the experts' weight changes. Below zero, they pull apart."
_BUDGET = "Training samples that each method was allowed."


def all_plots(run: Run) -> list[Plot]:
    """Every plot that the tables of the run allow, in the order of the page."""
    plots = _fronts(run) + _tax(run) + _learning(run) + preference_plots(run) + _contraction(run)
    if run.summary.get("timing") or run.metrics:
        caption = "Wall time by phase; below, where an epoch of each expert spends it."
        plots.append(Plot("timing", "timing", caption, partial(curves.timing, run)))
    if run.summary.get("budget"):
        plots.append(Plot("budget", "budget", _BUDGET, partial(curves.budget, run.summary)))
    return plots


def _fronts(run: Run) -> list[Plot]:
    summary = run.summary
    if not summary:
        return []
    plots = []
    for first, second in combinations(summary["rewards"], 2):
        caption = f"{first} against {second}. Up and right is better. Bars: one standard error."
        draw = partial(fronts.pair_front, summary, first, second)
        plots.append(Plot("fronts", _file(f"front-{first}-{second}"), caption, draw))
    if "base" in summary["methods"]:
        plots.append(Plot("fronts", "front-all", _FRONT_ALL, partial(fronts.all_rewards, summary)))
    if summary["hypervolume"]:
        caption = "Hypervolume: how much of reward space the model dominates, round by round."
        plots.append(Plot("fronts", "hypervolume", caption, partial(fronts.hypervolume, summary)))
    return plots


def _tax(run: Run) -> list[Plot]:
    summary = run.summary
    if "base" not in summary.get("methods", {}):
        return []
    rewards, plots = summary["rewards"], []
    methods = [m for m in summary["methods"] if m.startswith("expert:")]
    last = aligned_method(summary)
    if methods:
        ends = [*methods, *([last] if last else [])]
        rows = [
            (method_look(m, rewards).label, changes(summary, run.evaluation, m, rewards))
            for m in ends
        ]
        plots.append(Plot("tax", "tax", _TAX, partial(curves.tax_matrix, rows, rewards)))
    parent, means = "base", summary["methods"]["base"]
    for entry in summary["rounds"]:
        number, child = entry["round"], f"mapreduce@{entry['round']}"
        ends = {name: (f"round-{number}:{name}", m) for name, m in _experts(entry).items()}
        if ends:
            rows = [
                (f"expert {name}", _step(run, parent, means, method, after))
                for name, (method, after) in ends.items()
            ]
            rows.append(("after Reduce", _step(run, parent, means, child, entry["means"])))
            caption = f"Round {number}: change against the model that the round began with."
            draw = partial(curves.tax_matrix, rows, rewards)
            plots.append(Plot("tax", f"tax-round-{number}", caption, draw))
        parent, means = child, entry["means"]
    return plots


def _experts(entry: dict[str, Any]) -> dict[str, Means]:
    return entry.get("expert_means") or {}


def _step(run: Run, start: str, before: Means, end: str, after: Means) -> list[Change]:
    """The changes of the rewards within a round.

    They are measured over the same prompts if evaluation.jsonl has rows of both models, because experts may
    be measured on fewer prompts than other models. Otherwise they are the differences of the means.
    """
    paired = paired_changes(run.evaluation, start, end)
    known = [name for name in run.rewards if name in before and name in after]
    found = paired or [Change(name, before[name], after[name], math.nan) for name in known]
    return directed(run.summary, found)


def _learning(run: Run) -> list[Plot]:
    plots = []
    for reward in dict.fromkeys(name for _, name in run.metrics):
        caption = _LEARNING.format(reward)
        draw = partial(curves.learning, run, reward)
        plots.append(Plot("learning", _file(f"learning-{reward}"), caption, draw))
    return plots


def _contraction(run: Run) -> list[Plot]:
    if not run.diagnostics:
        return []
    draw = partial(curves.contraction, run.diagnostics)
    plots = [Plot("contraction", "contraction", _CONTRACTION, draw)]
    for number, diagnostics in sorted(run.diagnostics.items()):
        caption = _COSINES.format(number)
        draw = partial(curves.cosines, diagnostics)
        plots.append(Plot("contraction", f"cosines-round-{number}", caption, draw))
    return plots


def _file(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)
