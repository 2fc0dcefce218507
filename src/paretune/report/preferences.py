"""Plots of preference learning: what it did to winners and losers, and how often rewards order alike."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from paretune.ops.orders import Orders, order_matrix

from .canvas import Plot, blank
from .fronts import draw_matrix
from .gains import higher_is_better
from .palette import FALL, INK, MUTED, RISE
from .read import Row, Run

MARKS = ("-4", "-2", "-1", "-.5", "0", ".5", "1", "2", "4")  # between the bins of `margins`
LEVELS = ("clean", "", "", "noise")
_LEARNED = (
    "The expert of {}. Accuracy: pairs whose better sample has the greater implicit reward (how much less "
    "than the reference the model errs there). Drift: that reward of winners and of losers apart; where both "
    "fall, the model forgets winners too. Margins: of pairs, in the loss's units, first and last epoch. Tau: "
    "Kendall's tau between implicit reward and score, by noise level."
)
_BASE = (
    "How often two rewards order two samples of the base of one prompt alike: the conflict before any "
    "training. One half is no agreement; pairs that tie do not count."
)
_FILE = "The same on the lists of the file that {} learned from; `file` is the file's own order."


def preference_plots(run: Run) -> list[Plot]:
    """Every plot of preference data that the run's tables allow."""
    plots, higher = [], {name: higher_is_better(run.summary, name) for name in run.rewards}
    for reward in dict.fromkeys(name for _, name in run.metrics):
        if any("w_diff" in row for row in _epochs(run, reward)):
            draw = partial(learned, _epochs(run, reward))
            plots.append(Plot("preferences", f"preferences-{reward}", _LEARNED.format(reward), draw))
    orders = order_matrix(base_lists(run.evaluation, higher), run.rewards)
    if len(run.rewards) > 1 and _any_pair(orders.pairs):
        plots.append(Plot("preferences", "agreement-base", _BASE, partial(agreement, orders)))
    for reward, found in run.summary.get("pairs", {}).items():
        orders = Orders(tuple(found["names"]), found["alike"], found["pairs"])
        if any(len(m) != len(orders.names) or any(len(line) != len(m) for line in m)
               for m in (orders.alike, orders.pairs)):  # fmt: skip
            continue
        draw = partial(agreement, orders)
        plots.append(Plot("preferences", f"agreement-{reward}", _FILE.format(reward), draw))
    return plots


def base_lists(
    rows: Sequence[Row], higher: Mapping[str, bool]
) -> list[dict[str, list[float]]]:
    """The scores of the base's samples of each prompt by reward, greater is better.

    rows: of evaluation.jsonl. higher: reward -> whether more of it is better.
    """
    found: dict[tuple[Any, ...], dict[str, dict[Any, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        name = row["reward"]
        if row["method"] == "base" and row.get("kind", "reward") == "reward" and name in higher:
            key = row.get("prompt_set"), row.get("prompt"), row.get("image")
            found[key][name][row.get("seed", 0)] = row["value"] * (1 if higher[name] else -1)
    lists = []
    for scores in found.values():
        seeds = sorted(set.intersection(*(set(own) for own in scores.values())))
        lists.append({name: [own[seed] for seed in seeds] for name, own in scores.items()})
    return lists


def agreement(orders: Orders) -> Figure:
    """The matrix of shares of pairs that two scorers order alike, with the number of pairs."""
    shares = [[math.nan if a is None else 2 * a - 1 for a in line] for line in orders.alike]
    texts = [
        ["\N{EN DASH}" if a is None else f"{a:.0%}\n{n:,}" for a, n in zip(line, counts, strict=True)]
        for line, counts in zip(orders.alike, orders.pairs, strict=True)
    ]
    names, count = list(orders.names), len(orders.names)
    figure = blank(max(3.9, 1.2 + 0.9 * count), 0.6 + 0.6 * count)
    draw_matrix(figure.axes[0], names, names, shares, texts, (FALL, RISE))
    return figure


def learned(rows: Sequence[Row]) -> Figure:
    """Accuracy, the drift of winners and losers, the histogram of margins, and tau by noise level."""
    figure = blank(7.2, 4.6, 2, 2)
    right, drift, margins, tau = figure.axes
    epochs = range(1, len(rows) + 1)
    right.plot(epochs, [_value(row, "accuracy") for row in rows], color=RISE, marker=".")
    right.axhline(0.5, color=MUTED, lw=0.8, ls=(0, (2, 2)))
    right.set_ylim(0, 1)
    _titled(right, "accuracy", "epoch")
    drift.plot(epochs, [_value(row, "w_diff") for row in rows], color=RISE, marker=".", label="winners")
    drift.plot(epochs, [_value(row, "l_diff") for row in rows], color=FALL, marker=".", label="losers")
    drift.axhline(0, color=MUTED, lw=0.8, ls=(0, (2, 2)))
    drift.legend()
    _titled(drift, "drift: reference's error less the model's", "epoch")
    _histogram(margins, rows)
    _levels(tau, rows, epochs)
    for axes in (right, drift, tau):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _histogram(axes: Axes, rows: Sequence[Row]) -> None:
    known = [row["margins"] for row in rows if row.get("margins")]
    ends = [(known[0], MUTED, "first epoch"), (known[-1], RISE, "last epoch")] if known else []
    for place, (counts, color, label) in enumerate(ends):
        total = sum(counts) or 1
        x = [i + 0.4 * place - 0.2 for i in range(len(counts))]
        axes.bar(x, [count / total for count in counts], width=0.4, color=color, label=label)
    axes.set_xticks([i + 0.5 for i in range(len(MARKS))], MARKS)
    if ends:
        axes.legend()
    _titled(axes, "share of pairs by margin", "margin, in the loss's units")


def _levels(axes: Axes, rows: Sequence[Row], epochs: Sequence[int]) -> None:
    for level, word in enumerate(LEVELS):
        values = [(row.get("tau_levels") or [None] * len(LEVELS))[level] for row in rows]
        label = f"{level / 4:g} to {(level + 1) / 4:g} {f'({word})' if word else ''}"
        shade = 1 - 0.22 * level
        numbers = [math.nan if v is None else v for v in values]
        axes.plot(epochs, numbers, color=INK, alpha=shade, marker=".", label=label)
    axes.set_ylim(-1.05, 1.05)
    axes.axhline(0, color=MUTED, lw=0.8, ls=(0, (2, 2)))
    axes.legend(ncols=2)
    _titled(axes, "Kendall's tau by noise level", "epoch")


def _titled(axes: Axes, title: str, below: str) -> None:
    axes.set_title(title, loc="left")
    axes.set_xlabel(below)


def _epochs(run: Run, reward: str) -> list[Row]:
    """The rows of an expert over all rounds."""
    return [row for (stage, name), rows in run.metrics.items() if name == reward and stage != "soup"
            for row in rows]  # fmt: skip


def _any_pair(pairs: Sequence[Sequence[int]]) -> bool:
    """Whether two different rewards have a pair that both order."""
    return any(count for i, line in enumerate(pairs) for j, count in enumerate(line) if i != j)


def _value(row: Row, key: str) -> float:
    value = row.get(key)
    return math.nan if value is None else float(value)
