"""Blank figures in the style of the report, and figures written to files and inline SVG.

Figures are built without pyplot, so there is no global state and any thread can write a report.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from paretune.files import write_bytes

from .palette import GRID, INK, MUTED, SURFACE, themed

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 9,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "text.parse_math": False,  # a reward may be called `a$b$`
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",  # text stays text: it follows the page's font and its theme
    "svg.hashsalt": "paretune",
}


@dataclass(frozen=True)
class Plot:
    """One figure. section: where the page shows it; name: its file name under plots/."""

    section: str
    name: str
    caption: str
    draw: Callable[[], Figure]


def blank(width: float = 3.9, height: float = 3.0, rows: int = 1, columns: int = 1) -> Figure:
    """An empty figure with rows and columns of axes. Sizes are in inches; 3.9 fill the width of a phone."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.subplots(rows, columns)
    return figure


def legend_below(figure: Figure, axes: Axes, columns: int = 2) -> None:
    """Put the legend of the axes below the plot, where it cannot cover a point."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, handlelength=1.6)


def save(plot: Plot, folder: Path) -> str:
    """Draw a plot, write NAME.png and NAME.svg with a light background, and return the SVG for the page."""
    with matplotlib.rc_context(STYLE):
        figure = plot.draw()
        picture, vector = io.BytesIO(), io.StringIO()
        figure.savefig(picture, format="png", dpi=160, facecolor=SURFACE)
        figure.set_layout_engine("none")  # the layout is done; the second format need not compute it again
        figure.savefig(vector, format="svg", facecolor=SURFACE, metadata={"Date": None})
    name = re.sub(r"[^\w@.-]", "_", plot.name)[:120]  # a reward in a foreign summary may be called ../x
    write_bytes(folder / f"{name}.png", picture.getvalue())
    write_bytes(folder / f"{name}.svg", vector.getvalue().encode())
    return _inline(vector.getvalue(), plot.name)


def _inline(svg: str, name: str) -> str:
    """Remove what only a separate SVG file needs, and make ids unique among the figures of the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    prefix = re.sub(r"[^\w-]", "_", name)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'href="#', f'href="#{prefix}-', svg)
    svg = svg.replace("url(#", f"url(#{prefix}-")
    svg = re.sub(
        r'<svg[^>]*?viewBox="([^"]*)"[^>]*>', r'<svg role="img" viewBox="\1">', svg, count=1
    )
    return themed(re.sub(r"\n\s*", "\n", svg))
