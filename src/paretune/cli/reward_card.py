"""`paretune check-rewards`: the reward card as tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..recipes import find_recipe, in_run, load_config
from .options import AsJson, Quiet, Recipe, Set, TrustRewards
from .printing import console, print_line, shown, speaker
from .progress import make_progress

commands = typer.Typer()
Prompts = Annotated[int, typer.Option("--prompts", help="Held-out prompts of each reward.", min=1)]
Samples = Annotated[int, typer.Option("--samples", help="Samples of each prompt.", min=2)]
Out = Annotated[Path | None, typer.Option("--out", help="Write the card into this file too, as JSON.")]


@commands.command("check-rewards")
def check_rewards(
    recipe: Recipe,
    prompts: Prompts = 16,
    samples: Samples = 4,
    out: Out = None,
    set_: Set = None,
    trust_rewards: TrustRewards = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Score the base by all rewards and judges: agreement, reliability, saturation, cost. Trains nothing."""
    from ..commands import check_rewards as checking
    from ..rewards.trust import registered_only

    found = find_recipe(recipe)
    config = load_config(found, set_ or ())
    config = registered_only(config, trust_rewards or not in_run(found), speaker(quiet))
    with make_progress(console, quiet, as_json) as progress:
        card = checking.check_rewards(config, progress, prompts, samples, out)
    if as_json:
        print_line(card)
        return
    for table in tables(card):
        Console().print(table)
    for line in card["notes"] or ["nothing stands out"]:
        typer.echo(shown(line))


def tables(card: dict[str, Any]) -> list[Table]:
    """The figures of each scorer, how reliable it is, and the matrices of correlations."""
    title = f"{card['prompts']} prompts, {card['samples']} samples of each"
    figures = _table(title, "", "mean", "std", "at low", "at high", "same groups", "within", "ms")
    variants = list(dict.fromkeys(v for own in card["scorers"].values() for v in own["reliability"]))
    steady = _table("Scored again: correlation (mean change)", "", *variants)
    for name, own in card["scorers"].items():
        figures.add_row(
            escape(name), _number(own["mean"]), _number(own["std"]), _share(own["at_low"]),
            _share(own["at_high"]), _share(own["same_groups"]), _share(own["within"]),
            _number(None if own["seconds"] is None else 1000 * own["seconds"]),
        )  # fmt: skip
        pairs = [own["reliability"].get(v, {}) for v in variants]
        steady.add_row(
            escape(name), *(f"{_number(p.get('correlation'))} ({_number(p.get('change'))})" for p in pairs)
        )
    matrices = []
    for title, key in (("over all samples", "correlation"), ("within prompts", "correlation_within")):
        matrix = _table(f"Spearman's correlations {title}, greater is better", "", *card["names"])
        for name, row in zip(card["names"], card[key], strict=True):
            matrix.add_row(escape(name), *("\N{EN DASH}" if v is None else f"{v:+.2f}" for v in row))
        matrices.append(matrix)
    return [figures, steady, *matrices]


def _table(title: str, *heads: str) -> Table:
    table = Table(title=title, title_justify="left")
    for head in heads:
        table.add_column(escape(head))
    return table


def _number(value: float | None) -> str:
    return "\N{EN DASH}" if value is None else f"{value:.3g}"


def _share(value: float | None) -> str:
    return "\N{EN DASH}" if value is None else f"{value:.0%}"
