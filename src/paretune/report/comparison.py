"""The page of a comparison: its table, the fronts of all methods, and hypervolumes with intervals."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from paretune.files import write_text
from paretune.types import ParetuneError

from .canvas import Plot, blank, legend_below, save
from .fronts import mark
from .gains import number, percent, signed
from .page import template
from .palette import MUTED, css_variables, method_look

Comparison = dict[str, Any]  # as `compare_runs` returns it
# Title, what stands below it, key of a method, and the unit that its value is divided by.
COSTS = (
    ("sent", "MB a device", "exchanged", 1e6),
    ("training", "s on a device a reward", "training_seconds", 1.0),
)
MARK = b"<title>paretune comparison</title>"


def write_comparison(comparison: Comparison, out: Path) -> Path:
    """Write the page `out`, one file that needs no network, and its plots beside it. Returns `out`.

    Raises ParetuneError if `out` is another file, which would be lost.
    """
    if out.is_file() and MARK not in out.read_bytes()[:4096]:
        raise ParetuneError(f"{out} exists and is no page of paretune compare; choose another --out")
    plots = [
        Plot("fronts", f"compare-{first}-{second}", f"{first} against {second}; error bars are standard "
             "errors, small points the same method at other preferences.",
             lambda a=first, b=second: pair(comparison, a, b))  # type: ignore[misc]
        for first, second in combinations(comparison["rewards"], 2)
    ]  # fmt: skip
    caption = "Hypervolume of each front and its 95 % bootstrap interval."
    plots.append(Plot("fronts", "compare-hypervolume", caption, lambda: volumes(comparison)))
    folder = out.parent / f"{out.stem}-plots"
    figures = [{"name": p.name, "caption": p.caption, "svg": Markup(save(p, folder))} for p in plots]
    page = template("comparison.html").render(
        light=Markup(css_variables(dark=False)),
        dark=Markup(css_variables(dark=True)),
        name=", ".join(comparison["runs"]),
        sentence=sentence(comparison),
        columns=_columns(comparison),
        lines=_lines(comparison),
        figures=figures,
        comparison=comparison,
    )
    write_text(out, page)
    return out


def sentence(comparison: Comparison) -> str:
    """Which method has the greatest hypervolume, and its margin over the method it is compared with."""
    methods = comparison["methods"]
    best = max(methods, key=lambda name: methods[name]["hypervolume"])
    label = method_look(best, comparison["rewards"]).label
    label = label[:1].upper() + label[1:]
    volume = f"{label} has the greatest hypervolume, {methods[best]['hypervolume']:.4f}"
    shown = best if best != comparison["against"] else "mapreduce"
    if methods.get(shown, {}).get("margin") is None:
        return f"{volume}."
    margin, (low, high) = methods[shown]["margin"], methods[shown]["margin_interval"]
    against = method_look(comparison["against"], comparison["rewards"]).label
    whose = "" if shown == best else f"{method_look(shown, comparison['rewards']).label} "
    interval = f"95 % interval {signed(low, 4)} to {signed(high, 4)}"
    return f"{volume}: {whose}{signed(margin, 4)} over {against} ({interval})."


def pair(comparison: Comparison, first: str, second: str) -> Figure:
    """The front of two rewards: methods with error bars, and their other preferences as small points."""
    figure = blank(3.9, 4.6)
    axes = figure.axes[0]
    for name, method in comparison["methods"].items():
        means, errors = method["means"], method["stderr"]
        look = method_look(name, comparison["rewards"])
        if first not in means or second not in means:
            continue
        others = [p["means"] for p in method["front"] if p["preference"] is not None]
        axes.plot([m[first] for m in others], [m[second] for m in others], look.marker,
                  color=look.color, ms=3, alpha=0.6)  # fmt: skip
        point = (means[first], means[second], errors[first], errors[second])
        mark(axes, point, look.color, look.marker, look.label)
    axes.set_xlabel(f"{_titled(comparison, first)}  →")
    axes.set_ylabel(f"{_titled(comparison, second)}  →")
    axes.xaxis.set_inverted(not comparison["higher_is_better"][first])
    axes.yaxis.set_inverted(not comparison["higher_is_better"][second])
    axes.margins(0.12)
    legend_below(figure, axes)
    return figure


def _titled(comparison: Comparison, name: str) -> str:
    return name if comparison["higher_is_better"].get(name, True) else f"{name} (lower is better)"


def volumes(comparison: Comparison) -> Figure:
    """The hypervolume of each method with its interval, one line for each method."""
    methods = list(comparison["methods"].items())[::-1]
    figure = blank(3.9, 0.8 + 0.26 * len(methods))
    axes = figure.axes[0]
    for y, (name, method) in enumerate(methods):
        look = method_look(name, comparison["rewards"])
        volume, (low, high) = method["hypervolume"], method["hypervolume_interval"]
        axes.plot([low, high], [y, y], color=look.color, lw=1.6)
        axes.plot(volume, y, look.marker, color=look.color, ms=6)
    axes.set_yticks(
        range(len(methods)), [method_look(n, comparison["rewards"]).label for n, _ in methods]
    )
    if comparison["against"]:
        axes.axvline(
            comparison["methods"][comparison["against"]]["hypervolume"], color=MUTED, lw=1, ls=(0, (4, 2))
        )
    axes.set_xlabel("hypervolume")
    return figure


def _columns(comparison: Comparison) -> list[tuple[str, str]]:
    rewards, judges = comparison["rewards"], comparison["judges"]
    def kind(name: str, words: str) -> str:
        return words if comparison["higher_is_better"].get(name, True) else f"{words}, lower is better"

    columns = [("runs", ""), *((r, kind(r, "reward")) for r in rewards)]
    columns += [(judges[r], kind(judges[r], f"judge of {r}")) for r in rewards if r in judges]
    columns += [(name, kind(name, "untargeted")) for name in comparison["untargeted"]]
    against = comparison["against"]
    columns += [("hypervolume", "95 % interval"), ("epsilon", "0 is best; 95 % interval")]
    if against:
        columns.append(("margin", f"over {method_look(against, rewards).label}"))
    return columns + [(title, under) for title, under, key, _ in COSTS if _has(comparison, key)]


def _lines(comparison: Comparison) -> list[dict[str, Any]]:
    lines = []
    for name, method in comparison["methods"].items():
        names = [c for c, under in _columns(comparison)[1:]
                 if under.startswith(("reward", "untargeted", "judge"))]  # fmt: skip
        cells = [(str(method["runs"]), "", "")]
        cells += [_score(method, score) for score in names]
        low, high = method["hypervolume_interval"]
        cells.append((f"{method['hypervolume']:.4f}", f"{low:.4f} to {high:.4f}", ""))
        low, high = method["epsilon_interval"]
        cells.append((number(method["epsilon"]), f"{number(low)} to {number(high)}", ""))
        if comparison["against"]:
            margin, error = method["margin"], method["margin_stderr"]
            cells.append(("", "", "") if margin is None else (signed(margin, 4), f"± {error:.4f}", ""))
        for _, _, key, unit in COSTS:
            if _has(comparison, key):
                value = method.get(key)
                cells.append(("" if value is None else f"{value / unit:,.1f}", "", ""))
        lines.append({"look": method_look(name, comparison["rewards"]), "cells": cells,
                      "main": name.rpartition(" ")[2] == "mapreduce"})  # fmt: skip
    return lines


def _has(comparison: Comparison, key: str) -> bool:
    return any(method.get(key) is not None for method in comparison["methods"].values())


def _score(method: dict[str, Any], name: str) -> tuple[str, str, str]:
    """The texts for a mean, its standard error and its gain over base."""
    if name not in method["means"]:
        return ("", "", "")
    found = method["gains"].get(name)
    change = ""
    if found and found["mean"]:
        change = percent(found["share"]) if found["share"] is not None else signed(found["mean"])
    return (number(method["means"][name]), f"± {number(method['stderr'][name])}", change)
