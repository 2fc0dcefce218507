"""Analyses as tables for the terminal."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table


def figures_table(found: dict[str, Any]) -> Table:
    """Every figure with its interval and its count."""
    table = Table(title="figures with 95 % intervals over prompts", title_justify="left")
    table.add_column("report")
    table.add_column("figure")
    for name in ("value", "interval", "count"):
        table.add_column(name, justify="right")
    for report, figures in found["reports"].items():
        for number, (name, figure) in enumerate(figures.items()):
            table.add_row(escape(report) if number == 0 else "", escape(name), *cells_of(figure))
    return table


def cells_of(figure: dict[str, Any]) -> tuple[str, str, str]:
    """Value, interval and count as words; – where there is nothing to tell."""
    value, low, high = (figure[key] for key in ("value", "low", "high"))
    interval = "–" if low is None else f"{low:.3f} .. {high:.3f}"
    return "–" if value is None else f"{value:.3f}", interval, f"{figure['count']:,}"


def losses_table(found: dict[str, Any]) -> Table:
    """The symbolic form of every loss, and its value at p_w = 0.6 and p_l = 0.25."""
    table = Table(title="what losses raise and lower; e^rho and -log s(rho) at p_w 0.6, p_l 0.25",
                  title_justify="left")  # fmt: skip
    for name in ("loss", "form", "good", "bad"):
        table.add_column(name)
    for name in ("e^rho", "value"):
        table.add_column(name, justify="right")
    for row in found["losses"]:
        numbers = ["" if row[key] is None else f"{row[key]:.4f}" for key in ("ratio", "value")]
        table.add_row(row["loss"], row["form"], row["good"] or "", row["bad"] or "", *numbers)
    return table
