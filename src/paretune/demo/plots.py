"""The measured front as SVG: one plot for each pair of rewards, in which every point is a button."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from .front import Front, Place, Point
from .markup import shown

SIDE, LEFT, BOTTOM, TOP = 260, 58, 40, 12
MOST_PLOTS = 6
LABELS = {"mapreduce": "MapReduce", "rewarded_soup": "rewarded soup", "expert": "expert", "rate": "token"}
SHAPES = {"mapreduce": "circle", "mix": "square", "rate": "diamond", "conditioned": "triangle", None: "cross"}


def front_plots(front: Front, place: Place | None, method: str, beside: bool = False) -> str:
    """The plots of all pairs of rewards (at most six), the legend, and a sentence about the setting.

    Args:
        front: the measured points.
        place: the place of the setting among them, or None.
        method: the method of the setting.
        beside: whether the setting has reward tokens in addition to the method, which no run measures.
    """
    pairs = list(combinations(range(len(front.rewards)), 2))[:MOST_PLOTS]
    if not pairs:
        return '<p class="pt-note">The run has one reward: there is nothing to trade.</p>'
    plots = "".join(_plot(front, x, y, place) for x, y in pairs)
    return (
        f'<div class="pt-plots">{plots}</div>{_legend(front)}'
        f'<p class="pt-note" aria-live="polite">{shown(_in_words(front, place, method, beside))}</p>'
    )


def label(point: Point) -> str:
    """The label of a point."""
    head, _, tail = point.name.partition(":")
    first, space, rest = head.partition(" ")
    return f"{LABELS.get(first, first.replace('_', '-'))}{space}{rest} {tail}".strip()


def _in_words(front: Front, place: Place | None, method: str, beside: bool) -> str:
    if beside:
        return "With reward tokens beside it this setting was not measured."
    if place is None:
        return f"The run measured no point of {method}."
    nearest = label(front.points[place.nearest])
    values = ", ".join(f"{r} {v:.2f}" for r, v in zip(front.rewards, place.values, strict=True))
    if place.measured:
        return f"This preference was measured ({nearest}): {values} on held-out prompts."
    if place.values == front.points[place.nearest].values:
        return f"This preference was not measured. The nearest that was: {nearest}, {values}."
    return f"This preference was not measured; linear between the points that were: {values}."


def _legend(front: Front) -> str:
    kinds = {"mapreduce": "MapReduce", "mix": "mix of experts", "rate": "reward tokens",
             "conditioned": "given weights"}  # fmt: skip
    present = [p.drawn_by for p in front.points]
    parts = [_key(SHAPES[k], f"pt-{k}", name) for k, name in kinds.items() if k in present]
    if None in present:
        parts.append(_key("cross", "pt-other", "base and others"))
    parts.append('<span><svg viewBox="-8 -8 16 16" aria-hidden="true"><circle class="pt-here" r="6"/></svg>'
                 "your setting</span>")
    return f'<p class="pt-legend">{"".join(parts)}<span>pale: beaten in every reward</span></p>'


def _key(shape: str, kind: str, name: str) -> str:
    return f'<span><svg viewBox="-8 -8 16 16" aria-hidden="true">{_mark(shape, kind)}</svg>{name}</span>'


def _mark(shape: str, kind: str) -> str:
    drawn = {
        "circle": '<circle class="{}" r="5.5"/>',
        "square": '<rect class="{}" x="-5" y="-5" width="10" height="10"/>',
        "diamond": '<path class="{}" d="M0-7 7 0 0 7-7 0Z"/>',
        "triangle": '<path class="{}" d="M0-6.5 6.5 5-6.5 5Z"/>',
        "cross": '<path class="{} pt-line" d="M-4.5-4.5 4.5 4.5M-4.5 4.5 4.5-4.5"/>',
    }
    return drawn[shape].format(kind)


def _plot(front: Front, x: int, y: int, place: Place | None) -> str:
    across, up = (_axis(front, i, place) for i in (x, y))
    names = [front.rewards[i] for i in (x, y)]
    marks = [
        _button(front, i, across.at(p.values[x]), TOP + SIDE - up.at(p.values[y]))
        for i, p in enumerate(front.points)
    ]
    here = ""
    if place is not None:
        at = across.at(place.values[x]), TOP + SIDE - up.at(place.values[y])
        dashed = "" if place.measured else " pt-dashed"
        here = f'<circle class="pt-here{dashed}" cx="{LEFT + at[0]:.1f}" cy="{at[1]:.1f}" r="10"/>'
    width, height = LEFT + SIDE + 14, TOP + SIDE + BOTTOM
    return (
        f'<svg class="pt-plot" viewBox="0 0 {width} {height}" role="group" '
        f'aria-label="{shown(names[0])} against {shown(names[1])}, measured">'
        f"{across.drawn(True)}{up.drawn(False)}"
        f'<text class="pt-axis" x="{LEFT + SIDE / 2}" y="{height - 5}">{shown(names[0])} →</text>'
        f'<text class="pt-axis" transform="translate(14 {TOP + SIDE / 2}) rotate(-90)">'
        f"{shown(names[1])} →</text>"
        f"{here}{''.join(marks)}</svg>"
    )


def _button(front: Front, number: int, x: float, y: float) -> str:
    point = front.points[number]
    values = ", ".join(f"{r} {v:.2f}" for r, v in zip(front.rewards, point.values, strict=True))
    kind = f"pt-{point.drawn_by}" if point.drawn_by else "pt-other"
    pale = "" if point.best else " pt-pale"
    title = f"{label(point)}: {values}"
    inner = f'<title>{shown(title)}</title>{_mark(SHAPES[point.drawn_by], kind)}'
    place = f'transform="translate({LEFT + x:.1f} {y:.1f})"'
    if point.drawn_by is None:
        return f'<g class="pt-point{pale}" {place} role="img" aria-label="{shown(title)}">{inner}</g>'
    return (
        f'<g class="pt-point pt-button{pale}" {place} role="button" tabindex="0" data-point="{number}" '
        f'aria-label="Set the sliders to {shown(title)}"><circle class="pt-hit" r="13"/>{inner}</g>'
    )


class _Axis:
    """Maps values to pixels from 0 to SIDE. Better values are further right, or higher up."""

    def __init__(self, values: Sequence[float], higher: bool) -> None:
        low, high = min(values), max(values)
        margin = 0.08 * (high - low) or 0.05
        self.low, self.high, self.higher = low - margin, high + margin, higher

    def at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return SIDE * (share if self.higher else 1 - share)

    def drawn(self, across: bool) -> str:
        """Three grid lines with their values."""
        parts = []
        for share in (0.1, 0.5, 0.9):
            value = self.low + share * (self.high - self.low)
            at = self.at(value)
            x, y = (LEFT + at, TOP + SIDE) if across else (LEFT, TOP + SIDE - at)
            end = f'x2="{x:.1f}" y2="{TOP}"' if across else f'x2="{LEFT + SIDE}" y2="{y:.1f}"'
            where = f'x="{x:.1f}" y="{y + 15:.1f}"' if across else f'x="{x - 5}" y="{y + 4:.1f}"'
            kind = "pt-tick" if across else "pt-tick pt-end"
            parts.append(f'<line class="pt-grid" x1="{x:.1f}" y1="{y:.1f}" {end}/>'
                         f'<text class="{kind}" {where}>{value:.2f}</text>')
        return "".join(parts)


def _axis(front: Front, index: int, place: Place | None) -> _Axis:
    values = [p.values[index] for p in front.points]
    return _Axis([*values, place.values[index]] if place else values, front.higher[index])
