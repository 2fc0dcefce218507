"""Plots of the course of a run: the alignment tax, learning, contraction, cosines, time and budget."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..ops.rounds import spaced
from .canvas import blank, legend_below
from .fronts import draw_matrix
from .gains import Change, duration, number, percent, shown_methods, signed, titled
from .palette import FALL, INK, MUTED, RISE, method_look
from .read import Diagnostics, Row, Run, Summary


def tax_matrix(rows: Sequence[tuple[str, Sequence[Change]]], rewards: Sequence[str]) -> Figure:
    """The matrix of changes. rows: (label, changes).

    The numbers are changes, and the colours are gains: the fall of a cost is blue. Colours are scaled by
    column, because each reward has another range.
    """
    table = [{change.name: change for change in line} for _, line in rows]
    scales = {}
    for reward in rewards:
        sizes = [abs(line[reward].absolute) for line in table if reward in line]
        scales[reward] = max(sizes, default=0.0) or 1.0
    shares, texts = [], []
    for line in table:
        shares.append([line[r].gain / scales[r] if r in line else math.nan for r in rewards])
        texts.append([_cell(line.get(reward)) for reward in rewards])
    height = 0.62 if any("±" in text for line in texts for text in line) else 0.52
    figure = blank(max(3.9, 1.2 + 1.0 * len(rewards)), 0.7 + height * len(rows))
    draw_matrix(figure.axes[0], [label for label, _ in rows], rewards, shares, texts, (FALL, RISE))
    return figure


def _cell(change: Change | None) -> str:
    if change is None:
        return "\N{EN DASH}"
    lines = [signed(change.absolute)]
    if math.isfinite(change.stderr):
        lines.append(f"± {number(change.stderr)}")
    if change.relative is not None:
        lines.append(percent(change.relative))
    return "\n".join(lines)


def learning(run: Run, reward: str) -> Figure:
    """The reward of one expert (also smoothed), all rounds on one axis; below it the KL, if any was paid."""
    known = [row for (_, name), rows in run.metrics.items() if name == reward for row in rows]
    # A recipe without a KL records zeros: it measured none, which a line at zero would hide.
    paid = any(math.isfinite(value) and value != 0 for value in (_value(row, "kl") for row in known))
    figure = blank(3.9, 3.6, 2, 1) if paid else blank(3.9, 2.7)
    top, bottom = figure.axes[0], figure.axes[1] if paid else None
    look = method_look(f"expert:{reward}", run.rewards)
    offset = 0.0
    stages = [stage for stage, name in run.metrics if name == reward and stage != "soup"]
    for place, stage in enumerate(stages):
        rows = run.metrics[stage, reward]
        label = f"expert {reward}" if place == 0 else "_"
        end = _curves(top, bottom, rows, offset, look.color, label)
        if place:
            for axes in figure.axes:
                axes.axvline(offset, color=MUTED, lw=0.8, ls=(0, (2, 2)))
        title = f" {stage.replace('-', ' ')}"
        top.annotate(
            title,
            (offset, 1.0),
            xycoords=top.get_xaxis_transform(),
            size=7,
            color=MUTED,
            va="bottom",
        )
        offset = end
    soup = run.metrics.get(("soup", reward), [])
    if soup:
        style = method_look("rewarded_soup", run.rewards)
        _curves(top, bottom, soup, 0.0, style.color, "soup's expert", zorder=2)
    if bottom is not None:
        top.sharex(bottom)
        top.tick_params(labelbottom=False)
        bottom.set_ylabel("KL")
    top.set_ylabel(f"mean {titled(run.summary, reward)}")
    lowest = bottom or top
    lowest.set_xlabel("epoch")
    lowest.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(figure, top)
    return figure


def _curves(
    top: Axes, bottom: Axes | None, rows: Sequence[Row], offset: float, color: str, label: str,
    zorder: int = 3,
) -> float:  # fmt: skip
    epochs = [offset + row["update"] for row in rows]
    rewards = [_value(row, "reward") for row in rows]
    top.plot(epochs, rewards, color=color, lw=0.7, alpha=0.35, zorder=zorder)
    top.plot(epochs, _smooth(rewards), color=color, lw=1.8, label=label, zorder=zorder)
    if bottom is not None:
        bottom.plot(epochs, [_value(row, "kl") for row in rows], color=color, lw=1.2, zorder=zorder)
    return max(epochs, default=offset)


def _value(row: Row, key: str) -> float:
    value = row.get(key)
    return math.nan if value is None else float(value)


def _smooth(values: Sequence[float], window: int = 9) -> list[float]:
    """A centred mean, which unlike a running average does not lag. It skips values that are not finite."""
    half = min(window, max(1, len(values) // 4)) // 2
    smooth = []
    for index in range(len(values)):
        near = [v for v in values[max(0, index - half) : index + half + 1] if math.isfinite(v)]
        smooth.append(sum(near) / len(near) if near else math.nan)
    return smooth


def contraction(diagnostics: dict[int, Diagnostics]) -> Figure:
    """The spread d of the experts by round, each labelled with rho, its ratio to the previous one."""
    rounds = sorted(diagnostics)
    spreads = [diagnostics[k]["spread"] for k in rounds]
    figure = blank(3.9, 2.9)
    axes = figure.axes[0]
    axes.plot(rounds, spreads, color=INK, marker="o", lw=1.8)
    for k, spread in zip(rounds, spreads, strict=True):
        rho = diagnostics[k].get("contraction")
        if rho is not None and k in spaced(rounds):
            label = f"\N{GREEK SMALL LETTER RHO} = {rho:.2f}"
            axes.annotate(label, (k, spread), (6, 5), textcoords="offset points", size=8)
    axes.set_xticks(spaced(rounds))
    axes.set_xlim(rounds[0] - 0.4, rounds[-1] + 0.4)
    axes.set_ylim(0, max(spreads) * 1.25 or 1.0)  # the spread of a single expert is 0
    axes.set_xlabel("round")
    axes.set_ylabel("spread d")
    return figure


def cosines(diagnostics: Diagnostics) -> Figure:
    """The conflict matrix of one round: cosines between the experts' weight changes."""
    names, values = diagnostics["rewards"], diagnostics["cosines"]
    texts = [[f"{value:+.2f}".replace("-", "\N{MINUS SIGN}") for value in line] for line in values]
    figure = blank(max(3.9, 1.2 + 0.75 * len(names)), 0.6 + 0.55 * len(names))
    draw_matrix(figure.axes[0], names, names, values, texts, (FALL, RISE))
    return figure


def timing(run: Run) -> Figure:
    """Seconds by phase, and below them what an epoch's time went into, by expert."""
    phases = {key: value for key, value in run.summary.get("timing", {}).items() if key != "total"}
    parts = _epoch_parts(run)
    figure = blank(3.9, 1.2 + 0.3 * (len(phases) + len(parts)), 2 if parts else 1, 1)
    top = figure.axes[0]
    top.barh(list(phases), list(phases.values()), color=RISE, height=0.6)
    for place, seconds in enumerate(phases.values()):
        top.annotate(duration(seconds), (seconds, place), textcoords="offset points", xytext=(4, 0),
                     va="center", fontsize=8)  # fmt: skip
    top.set_xlim(0, max(phases.values(), default=1) * 1.3 or 1)
    top.set_xlabel("seconds")
    _bars(top)
    if parts:
        _draw_parts(figure, parts)
    return figure


def _draw_parts(figure: Figure, parts: dict[str, dict[str, float]]) -> None:
    bottom = figure.axes[1]
    shades = {"sample": RISE, "score": "#d98200", "train": "#767e8b"}
    left = dict.fromkeys(parts, 0.0)
    for name, color in shades.items():
        widths = [part[name] for part in parts.values()]
        bottom.barh(
            list(parts), widths, left=list(left.values()), color=color, label=name, height=0.6
        )
        left = {key: left[key] + width for key, width in zip(left, widths, strict=True)}
    bottom.set_xlabel("seconds an epoch (mean)")
    _bars(bottom)
    legend_below(figure, bottom, columns=3)


def _epoch_parts(run: Run) -> dict[str, dict[str, float]]:
    table: dict[str, dict[str, float]] = {}
    for reward in run.rewards:
        rows = [row for (_, name), rows in run.metrics.items() if name == reward for row in rows]
        if rows and all("seconds_sample" in row for row in rows):
            table[reward] = {
                part: sum(row[f"seconds_{part}"] for row in rows) / len(rows)
                for part in ("sample", "score", "train")
            }
    return table


def budget(summary: Summary) -> Figure:
    """The number of training samples of every method, as bars."""
    known = summary["budget"]
    methods = [m for m in shown_methods(summary) if m in known]
    methods += [m for m in known if m not in methods and "@" not in m]
    looks = [method_look(method, summary["rewards"]) for method in methods]
    figure = blank(3.9, 0.8 + 0.3 * len(methods))
    axes = figure.axes[0]
    values = [known[method] for method in methods]
    axes.barh(
        [look.label for look in looks], values, color=[look.color for look in looks], height=0.6
    )
    for place, value in enumerate(values):
        axes.annotate(f"{value:,.0f}", (value, place), textcoords="offset points", xytext=(4, 0),
                      va="center", fontsize=8)  # fmt: skip
    axes.set_xlim(0, max([*values, 1]) * 1.3)
    axes.set_xlabel("training samples")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    _bars(axes)
    return figure


def _bars(axes: Axes) -> None:
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0, labelcolor=INK)
