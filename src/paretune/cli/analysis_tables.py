"""Analyses as tables for the terminal."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ..ops.symbolic import FORMULAS
from ..report.analyses import cells_of, marked


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


def credits_of(found: dict[str, Any]) -> list[Text]:
    """A line an answer: the sum of its tokens' credits, and the tokens, green for a gain and red for a loss.

    A token is coloured where its credit is at least a fifth of the answer's greatest one.
    """
    lines: list[Text] = []
    for answer in found.get("tokens", ()):
        line = Text(f"{answer['sum']:+.3f}  ")
        for text, _, share in marked(answer):
            style = "" if abs(share) < 0.2 else "green" if share > 0 else "red"
            line.append(text, style=style)
        lines.append(line)
    return lines


def entailed_table(found: dict[str, Any]) -> Table:
    """Of every form the forms whose loss is never above its own."""
    table = Table(title="forms by their losses: the first is never below the others", title_justify="left")
    for name in ("form", "e^rho", "never below"):
        table.add_column(name)
    for name, formula in FORMULAS.items():
        below = [row["below"] for row in found["entails"] if row["above"] == name]
        table.add_row(name, formula, ", ".join(below) or "–")
    return table


def losses_table(found: dict[str, Any]) -> Table:
    """The symbolic form of every loss, and its value at p_w = 0.6 and p_l = 0.25, reference 0.5 and 0.4."""
    title = "what losses raise and lower; e^rho and -log s(rho) at p_w .6, p_l .25, of a reference .5, .4"
    table = Table(title=title, title_justify="left")
    for name in ("loss", "form", "good", "bad"):
        table.add_column(name)
    for name in ("e^rho", "value"):
        table.add_column(name, justify="right")
    for row in found["losses"]:
        numbers = ["" if row[key] is None else f"{row[key]:.4f}" for key in ("ratio", "value")]
        form = " ".join(filter(None, [row["form"], "- reference" * row["reference"], row["more"]]))
        table.add_row(row["loss"], form, row["good"] or "", row["bad"] or "", *numbers)
    return table
