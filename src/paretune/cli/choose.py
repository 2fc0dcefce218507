"""The commands that choose before a run: how its rewards are joined, and settings for its methods."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..recipes import find_recipe, load_config
from ..types import ParetuneError
from .options import AsJson, Quiet, Recipe, Set
from .printing import console, print_line
from .progress import make_progress
from .stopping import stoppable

commands = typer.Typer()
Methods = Annotated[
    str | None, typer.Option("--methods", help="Methods, such as mapreduce,morl_dr; default: the recipe's.")
]
Rates = Annotated[str, typer.Option("--rates", help="Factors of train.learning_rate to try.")]
Batches = Annotated[str, typer.Option("--batches", help="Factors of train.prompts_per_epoch to try.")]
Seeds = Annotated[str, typer.Option("--seeds", help="Seeds of the trials; not those that tables report.")]
Prompts = Annotated[int, typer.Option("--prompts", help="Prompts put aside of each training set.", min=1)]
Trials = Annotated[Path | None, typer.Option("--out", help="Folder of the trials; default runs/tune-NAME.")]

Pilot = Annotated[Path | None, typer.Option("--out", help="Folder of the pilot; default runs/advise-NAME.")]


@commands.command()
def tune(
    recipe: Recipe,
    methods: Methods = None,
    rates: Rates = "0.5,1,2",
    batches: Batches = "1,2",
    seeds: Seeds = "1000",
    prompts: Prompts = 32,
    out: Trials = None,
    set_: Set = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Choose each method's learning rate and batch by one small grid, on prompts put aside of training.

    Writes OUT/tuned.yaml and a recipe for every method. Ctrl-C stops; the same command goes on.
    """
    from ..commands import tune as tuning

    config = load_config(find_recipe(recipe), set_ or ())
    place = out or Path("runs") / f"tune-{config.name}"
    with stoppable(place, "the same command"), make_progress(console, quiet, as_json) as progress:
        chosen = tuning.tune(
            config, place, progress, tuple((methods or "").replace(",", " ").split()),
            _factors("--rates", rates), _factors("--batches", batches),
            [_whole(seed) for seed in seeds.replace(",", " ").split()], prompts,
        )  # fmt: skip
    if as_json:
        print_line({"tuned": str(place / tuning.CHOSEN), **chosen})
        return
    table = Table(title="best settings on validation prompts", title_justify="left")
    for name in ("method", "hypervolume", "samples", "updates", "settings"):
        table.add_column(name)
    for method, best in chosen["methods"].items():
        keys = " ".join(f"{key}={value:g}" for key, value in best["set"].items())
        table.add_row(
            method, f"{best['hypervolume']:.4f}", f"{best['samples']:,}", f"{best['updates']:,}", keys
        )
    Console().print(table)
    for told in chosen.get("failed", ()):
        setting = f"rate {told['rate']:g}, batch {told['batch']:g}"
        typer.echo(f"failed, so not chosen: {told['method']}, {setting}: {told['error']}")
    typer.echo(f"settings: {place / tuning.CHOSEN}   recipes: {place}/METHOD.yaml")


@commands.command()
def advise(
    recipe: Recipe,
    epochs: Annotated[int, typer.Option("--epochs", help="Epochs of the pilot's experts.", min=1)] = 4,
    prompts: Prompts = 16,
    out: Pilot = None,
    set_: Set = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Run a short pilot and say how a recipe's rewards should be joined, with the evidence.

    Ctrl-C stops; the same command goes on.
    """
    from ..commands import advise as advising

    config = load_config(find_recipe(recipe), set_ or ())
    place = out or Path("runs") / f"advise-{config.name}"
    with stoppable(place, "the same command"), make_progress(console, quiet, as_json) as progress:
        advice = advising.advise(config, place, progress, epochs, prompts)
    if as_json:
        print_line({"advice": str(place / advising.ADVICE), **advice})
        return
    titles = {
        "agreement": "agreement of the rewards on the base's samples", "cosines": "cosines of the experts",
    }  # fmt: skip
    for key, title in titles.items():
        table = Table(title=title, title_justify="left")
        for name in ("", *advice["rewards"]):
            table.add_column(escape(name))
        for name, row in zip(advice["rewards"], advising.table_of(advice, key), strict=True):
            table.add_row(escape(name), *row)
        Console().print(table)
    choice = advice["choice"]
    chosen = [f"{key}={_word(value)}" for key, value in choice["set"].items()]
    # What was given here comes first, so that the choice is the last word.
    words = shlex.join([recipe, *(word for item in [*(set_ or ()), *chosen] for word in ("--set", item))])
    typer.echo(f"choice: {choice['name']}")
    for line in choice["why"]:
        typer.echo(f"  because {line}")
    typer.echo(f"run: paretune run {words}")
    if choice["beside"]:
        typer.echo(f"beside it: {choice['beside']}")


def _word(value: object) -> str:
    """A value for --set, without spaces."""
    return json.dumps(value, separators=(",", ":")).replace('"', "")


def _factors(option: str, text: str) -> list[float]:
    """Positive numbers, in the order given. Raises ParetuneError."""
    found = []
    for part in text.replace(",", " ").split():
        try:
            number = float(part)
        except ValueError:
            number = 0.0
        if not 0 < number <= 1000:
            raise ParetuneError(f"{option} wants factors above 0, such as 0.5,1,2, not {part!r}")
        found.append(number)
    return found


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise ParetuneError(f"--seeds wants whole numbers, such as 1000,1001, not {text!r}")
    return int(text)
