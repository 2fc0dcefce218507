"""Plots of the fronts: pairs of rewards, all rewards at once, the hypervolume, and the README's picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations, pairwise

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..ops.rounds import spaced
from .canvas import STYLE, blank, legend_below
from .gains import (
    aligned_method,
    higher_is_better,
    last_round,
    number,
    round_methods,
    round_number,
    shown_methods,
    titled,
)
from .palette import GRID, INK, MUTED, SURFACE, method_look
from .read import Summary

Point = tuple[float, float, float, float]  # x, y and their standard errors


def pair_front(summary: Summary, first: str, second: str) -> Figure:
    """The front of two rewards: methods with error bars, and the rounds of MapReduce joined by arrows."""
    figure = blank(3.9, 3.9)
    _draw_pair(figure.axes[0], summary, first, second)
    legend_below(figure, figure.axes[0])
    return figure


def front_figure(summary: Summary) -> Figure:
    """The picture for a README: at most three fronts of two rewards side by side, with one legend."""
    with matplotlib.rc_context(STYLE):
        pairs = list(combinations(summary["rewards"], 2))[:3]
        figure = blank(3.6 * len(pairs), 3.7, 1, len(pairs))
        figure.set_facecolor(SURFACE)
        for axes, (first, second) in zip(figure.axes, pairs, strict=True):
            _draw_pair(axes, summary, first, second)
        legend_below(figure, figure.axes[0], columns=2 * len(pairs))
    return figure


def _draw_pair(axes: Axes, summary: Summary, first: str, second: str) -> None:
    path = round_methods(summary)
    for method in shown_methods(summary):
        if method in path and method != "base":
            continue
        point = _point(summary, method, first, second)
        look = method_look(method, summary["rewards"])
        if point:
            mark(axes, point, look.color, look.marker, look.label)
    look = method_look("mapreduce", summary["rewards"])
    points = [_point(summary, method, first, second) for method in path]
    steps = [point for point in points if point]
    for start, end in pairwise(steps):
        axes.annotate(
            "",
            xy=(end[0], end[1]),
            xytext=(start[0], start[1]),
            arrowprops={
                "arrowstyle": "-|>",
                "color": look.color,
                "lw": 1.8,
                "shrinkA": 4,
                "shrinkB": 5,
            },
            zorder=4,
        )
    rounds = [round_number(summary, method) for method, point in zip(path, points, strict=True) if point]
    named = _named(summary)
    for k, point in zip(rounds[1:], steps[1:], strict=True):
        label = "MapReduce, after a round" if k == rounds[1] else "_"
        mark(axes, point, look.color, look.marker, label)
        if k not in named:
            continue
        axes.annotate(
            str(k), (point[0], point[1]), (-8, 6), textcoords="offset points", size=8,
            weight="bold", color=look.color, ha="center", va="center", zorder=7,
        )  # fmt: skip
    axes.set_xlabel(f"{titled(summary, first)}  →")
    axes.set_ylabel(f"{titled(summary, second)}  →")
    axes.margins(0.12)
    # Further up and further right are better, also for a cost.
    axes.xaxis.set_inverted(not higher_is_better(summary, first))
    axes.yaxis.set_inverted(not higher_is_better(summary, second))


def mark(axes: Axes, point: Point, color: str, marker: str, label: str, size: float = 6.5) -> None:
    """Draw the point of one method with its error bars."""
    x, y, x_error, y_error = point
    axes.errorbar(x, y, xerr=x_error, yerr=y_error, color=color, elinewidth=1, capsize=2, zorder=3)
    axes.plot(x, y, marker, color=color, ms=size, label=label, mec=SURFACE, mew=0.6, zorder=5)


def _named(summary: Summary) -> list[int]:
    """The rounds that a plot names; the names of all of many would hide each other."""
    return spaced(range(1, last_round(summary) + 1))


def _point(summary: Summary, method: str, first: str, second: str) -> Point | None:
    means = summary["methods"].get(method, {})
    if means.get(first) is None or means.get(second) is None:
        return None
    errors = summary.get("stderr", {}).get(method, {})
    return means[first], means[second], errors.get(first) or 0.0, errors.get(second) or 0.0


def all_rewards(summary: Summary) -> Figure:
    """Parallel axes, one for each reward. The base is the zero line; a method that is above it dominates it.

    Every axis is scaled by the largest change of its reward, and is labelled with the values themselves.
    """
    path = round_methods(summary)
    told = _named(summary)
    named = {method for method in path if round_number(summary, method) in told}
    rewards = summary["rewards"]
    methods = [m for m in shown_methods(summary) if m not in path[1:] or m in named]
    base = summary["methods"]["base"]
    figure = blank(max(3.9, 1.3 * len(rewards)), 4.2)
    axes = figure.axes[0]
    scales = {reward: _largest_change(summary, reward) for reward in rewards}
    # A negative scale turns the axis of a cost upside down, so that above the base line is always better.
    turned = {r: s if higher_is_better(summary, r) else -s for r, s in scales.items()}
    last = aligned_method(summary)
    for place, method in enumerate(methods):
        means = summary["methods"][method]
        errors = summary.get("stderr", {}).get(method, {})
        look = method_look(method, rewards)
        heights = [(means.get(r, math.nan) - base[r]) / turned[r] for r in rewards]
        bars = [(errors.get(r) or 0.0) / scales[r] for r in rewards]
        shift = 0.16 * (place / max(len(methods) - 1, 1) - 0.5)
        early = "@" in method  # earlier rounds are thin and pale
        axes.errorbar(
            [x + shift for x in range(len(rewards))], heights, yerr=bars, color=look.color,
            marker=look.marker, ms=4 if early else 6, lw=2.4 if method == last else 1.1,
            alpha=0.5 if early else 1.0, capsize=2, elinewidth=1, label=look.label,
            zorder=5 if method == last else 3, mec=SURFACE, mew=0.5,
        )  # fmt: skip
    axes.axhline(0, color=MUTED, lw=1.2, zorder=2)
    labels = [titled(summary, reward).replace(" (", "\n(") for reward in rewards]
    axes.set_xticks(range(len(rewards)), labels, color=INK)
    axes.set_xlim(-0.35, len(rewards) - 0.55)
    axes.set_ylabel("change against base, share of the largest")
    axes.grid(visible=False, axis="y")
    for x, reward in enumerate(rewards):
        for height in (-1, 0, 1):
            value = number(base[reward] + height * turned[reward])
            axes.text(x + 0.13, height + 0.05, value, fontsize=7, color=MUTED, va="bottom")
    axes.set_ylim(min(-0.5, axes.get_ylim()[0]), max(1.12, axes.get_ylim()[1]))
    for text in axes.texts:
        text.set_clip_on(True)
    legend_below(figure, axes)
    return figure


def _largest_change(summary: Summary, reward: str) -> float:
    base = summary["methods"]["base"][reward]
    values = [
        means[reward] for means in summary["methods"].values() if means.get(reward) is not None
    ]
    return max(abs(value - base) for value in values) or 1.0


def hypervolume(summary: Summary) -> Figure:
    """The hypervolume by round, with Rewarded Soup and the other methods as horizontal lines."""
    volumes = summary["hypervolume"]
    figure = blank(3.9, 3.0)
    axes = figure.axes[0]
    steps = [(round_number(summary, name), volumes.get(name)) for name in round_methods(summary)]
    known = [(k, volume) for k, volume in steps if volume is not None]
    look = method_look("mapreduce", summary["rewards"])
    axes.plot(*zip(*known, strict=True), color=look.color, marker="o", lw=2, label=look.label)
    path = round_methods(summary)
    # Experts are left out: each is only one corner of the front, and their lines would crowd the plot.
    rivals = [m for m in shown_methods(summary) if m not in path and not m.startswith("expert:")]
    others = [method for method in rivals if volumes.get(method) is not None]
    for method in others:
        style = method_look(method, summary["rewards"])
        axes.axhline(volumes[method], color=style.color, lw=1.3, ls=(0, (4, 2)))
        axes.plot([], [], style.marker, color=style.color, ls=(0, (4, 2)), label=style.label)
    named = _named(summary)
    ticks = [k for k, _ in known if not k or k in named]
    axes.set_xticks(ticks, [str(i) if i else "base" for i in ticks])
    axes.set_xlabel("round")
    axes.set_ylabel("hypervolume")
    axes.margins(y=0.15)
    legend_below(figure, axes)
    return figure


def draw_matrix(
    axes: Axes, rows: Sequence[str], columns: Sequence[str], shares: Sequence[Sequence[float]],
    texts: Sequence[Sequence[str]], colors: tuple[str, str],
) -> None:  # fmt: skip
    """Draw a matrix whose cells are coloured by sign, with an opacity that shows their size.

    Colours fade into the background rather than into white, so that they also fit a dark page.

    Args:
        axes: to draw on.
        rows: labels of the rows.
        columns: labels of the columns.
        shares: the values of the cells, from -1 to 1.
        texts: the texts of the cells.
        colors: for values below zero and above.
    """
    for y, line in enumerate(shares):
        for x, share in enumerate(line):
            opacity = 0.6 * min(abs(share), 1.0) if math.isfinite(share) else 0.0
            axes.add_patch(
                Rectangle(
                    (x - 0.5, y - 0.5), 1, 1, facecolor=colors[share > 0], alpha=opacity, lw=0
                )
            )
            axes.text(x, y, texts[y][x], ha="center", va="center", fontsize=8)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks(range(len(columns)), columns, color=INK)
    axes.set_yticks(range(len(rows)), rows, color=INK)
    axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False, bottom=False)
    axes.set_xticks([x - 0.5 for x in range(len(columns) + 1)], minor=True)
    axes.set_yticks([y - 0.5 for y in range(len(rows) + 1)], minor=True)
    axes.grid(visible=False)
    axes.grid(visible=True, which="minor", color=GRID, lw=1)
    axes.tick_params(which="minor", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
