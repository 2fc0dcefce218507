"""Colours, markers and names of methods, the same in every plot and on the page.

Plots are drawn once, in the light colours. On the page each of these colours is replaced by a CSS variable,
so that the same inline SVG fits light and dark themes. A colour alone never carries meaning: every method
also has a marker, because nobody can distinguish a dozen colours with certainty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

INK, MUTED, GRID, SURFACE = "#1c2331", "#66707f", "#dde2e9", "#fefefe"
RISE, FALL = "#0b67ad", "#c8560b"

# light colour -> dark colour. The light one doubles as the key that the page replaces in the SVG.
DARK_OF = {
    INK: "#e7eaf0",
    MUTED: "#9aa4b4",
    GRID: "#323a47",
    SURFACE: "#171b22",
    RISE: "#4fa6ee",
    FALL: "#f08a45",
    "#767e8b": "#a6afbc",
    "#0067b1": "#5ab4f8",
    "#d98200": "#f2ac38",
    "#00845f": "#33c79b",
    "#b8558f": "#e391c0",
    "#8f7a00": "#d8c045",
    "#6f52c4": "#ab98f3",
    "#2b93b8": "#76d3f0",
    "#8a5a2b": "#cc9d6e",
    "#c4500b": "#f2823f",
    "#4d6a2f": "#a0be7b",
    "#a33a3a": "#e98282",
    "#2f7a78": "#6cc4c0",
}

_ROLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    SURFACE: "surface",
    RISE: "rise",
    FALL: "fall",
}


@dataclass(frozen=True)
class Look:
    """The label, the colour and the marker of one method."""

    label: str
    color: str
    marker: str

    @property
    def css(self) -> str:
        """The colour as a CSS variable, which fits either theme."""
        return f"var({_variable(self.color)})"


_FIXED = {
    "base": Look("base", "#767e8b", "o"),
    "mapreduce": Look("MapReduce", "#0067b1", "o"),
    "rewarded_soup": Look("rewarded soup", "#d98200", "s"),
    "morl_d": Look("MORL-D", "#8a5a2b", "P"),
    "morl_dr": Look("MORL-DR", "#c4500b", "X"),
    "sequential": Look("sequential", "#4d6a2f", "h"),
    "rate": Look("RaTE, all tokens", "#8f7a00", "*"),
    "selma": Look("SELMA", "#a33a3a", "p"),
    "conditioned": Look("conditioned", "#2f7a78", "d"),
}
_EXPERT_COLORS = ("#00845f", "#b8558f", "#6f52c4", "#8f7a00", "#2b93b8")
_EXPERT_MARKERS = ("^", "v", "D", "<", ">")


def method_look(method: str, rewards: Sequence[str]) -> Look:
    """The look of a method name of summary.json: `base`, `expert:ocr`, `mapreduce@1`, ..."""
    prefix, _, bare = method.rpartition(" ")
    if prefix:  # a comparison puts the label of the run before the name
        look = method_look(bare, rewards)
        return Look(f"{prefix} {look.label}", look.color, look.marker)
    head, _, tail = method.partition(":")
    if tail and head in ("expert", "rate"):
        slot = list(rewards).index(tail) if tail in rewards else len(rewards)
        label = f"expert {tail}" if head == "expert" else f"RaTE {tail}"
        turned = 0 if head == "expert" else 2  # a token has its expert's colour, and never its marker
        return Look(label, _EXPERT_COLORS[slot % 5], _EXPERT_MARKERS[(slot + turned) % 5])
    name, _, round_number = method.partition("@")
    fixed = _FIXED.get(name, Look(name.replace("_", " "), MUTED, "*"))
    if round_number:
        return Look(f"{fixed.label}, round {round_number}", fixed.color, fixed.marker)
    return fixed


def css_variables(dark: bool) -> str:
    """The declarations of every colour variable for one theme."""
    return "".join(
        f"{_variable(light)}:{shade if dark else light};" for light, shade in DARK_OF.items()
    )


def themed(svg: str) -> str:
    """The SVG with every colour of the palette exchanged for its CSS variable."""
    for light in DARK_OF:
        svg = svg.replace(light, f"var({_variable(light)})")
    return svg


def _variable(light: str) -> str:
    names = {
        INK: "ink",
        MUTED: "muted",
        GRID: "grid",
        SURFACE: "surface",
        RISE: "rise",
        FALL: "fall",
    }
    return f"--{names.get(light, 'c' + light[1:])}"
