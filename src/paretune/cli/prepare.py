"""The commands before a run: plan a recipe, begin one of your own, fetch a model, fine-tune its base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..recipes import find_recipe, load_config
from .options import AsJson, NewFolder, Quiet, Recipe, Set, TrustRewards
from .printing import print_json, speaker
from .results import results

commands = typer.Typer()
Measure = Annotated[
    bool,
    typer.Option(
        "--measure", help="Do a few of the recipe's own steps here; tell their peak memory and the hours."
    ),
]
NewFile = Annotated[Path | None, typer.Option("--out", help="A new file; by default standard output.")]
Epochs = Annotated[float, typer.Option("--epochs", help="How often each answer is read.")]
Limit = Annotated[int, typer.Option("--limit", help="Answers of each reward's set; 0: all.")]

Side = Annotated[str, typer.Option("--answers", help="Which answers are learned: chosen or rejected.")]
AdapterOnly = Annotated[bool, typer.Option("--adapter-only", help="Write the adapter, not the model.")]


@commands.command()
def plan(
    recipe: Recipe,
    set_: Set = None,
    measure: Measure = False,
    gpus: Annotated[
        int | None, typer.Option("--gpus", help="Tell how the run would use so many GPUs.")
    ] = None,
    trust_rewards: TrustRewards = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Print what a recipe will do: settings, experts, samples, updates, memory, hours. Runs nothing."""
    from ..commands.plan_recipe import plan_recipe

    planned = plan_recipe(recipe, set_ or (), trust_rewards, measure, speaker(quiet), gpus)
    if as_json:
        print_json(planned.to_json())
        return
    from .tables import plan_tables, scale_table

    for table in plan_tables(planned.config, planned.plan, planned.costs, planned.device):
        Console().print(table)
    if planned.scale is not None:
        Console().print(scale_table(planned.scale))
    for line in [] if quiet else planned.notes():
        typer.echo(line)
    if planned.measured is not None:
        typer.echo(str(planned.measured))


@commands.command()
def init(
    name: Recipe,
    out: NewFile = None,
    set_: Set = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write a commented recipe to edit, made from one that ships: paretune init quickstart > mine.yaml"""
    from ..commands.new_recipe import new_recipe

    text = new_recipe(name, set_ or (), out)
    if as_json:
        config = load_config(find_recipe(name), set_ or ()).model_dump(mode="json")
        print_json({"recipe": name, "file": None if out is None else str(out), "config": config})
    elif out is None:
        typer.echo(text, nl=False, file=results())
    else:
        typer.echo(f"recipe: {out}")
        speaker(quiet)(f"edit it, then: paretune plan {out}")


@commands.command("fetch")
def fetch_model(
    name: Annotated[str, typer.Argument(help="A model that paretune knows by name, such as smollm2.")],
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Download a model that paretune knows by name, check its hash, and open it once."""
    from ..foreign.converted import CONVERTED, convert
    from ..foreign.fetched import fetch
    from ..foreign.gguf import opened

    if name in CONVERTED:
        folder = convert(name, speaker(quiet))
        if as_json:
            print_json({"model": name, "file": str(folder / "model.safetensors"), "folder": str(folder)})
            return
        typer.echo(f"{name}: {folder}")
        return
    file = fetch(name, speaker(quiet))
    folder = opened(name)
    if as_json:
        print_json({"model": name, "file": str(file), "folder": str(folder)})
        return
    typer.echo(f"{name}: {folder}")
    speaker(quiet)(f"use it in a recipe: model.path: {name}")


@commands.command()
def sft(
    recipe: Recipe,
    out: NewFolder,
    set_: Set = None,
    epochs: Epochs = 1.0,
    limit: Limit = 0,
    answers: Side = "chosen",
    adapter_only: AdapterOnly = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Fine-tune a language model on a recipe's preferred answers before its run (supervised fine-tuning).

    The new model is a folder: paretune run RECIPE --set model.path=FOLDER
    """
    from ..training.language.supervised import supervise

    config = load_config(find_recipe(recipe), set_ or ())
    learned = supervise(
        config, out, epochs, limit=limit, side=answers, adapter_alone=adapter_only, quiet=quiet or as_json
    )
    if as_json:
        print_json({"adapter" if adapter_only else "model": str(out), "answers": learned})
        return
    typer.echo(f"{'adapter' if adapter_only else 'model'}: {out} (fine-tuned on {learned:,} answers)")
    if adapter_only:
        return
    speaker(quiet)(f"now: paretune run {recipe} --set model.path={out}")
