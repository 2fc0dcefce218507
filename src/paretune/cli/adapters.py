"""The commands for anyone's adapters, which know of no run: merge, inspect, fold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ..types import ParetuneError

commands = typer.Typer()
Renames = Annotated[
    list[str] | None,
    typer.Option(
        "--rename",
        metavar="OLD=NEW",
        help="Call modules otherwise, such as model.layers=model.language_model.layers. May be repeated.",
    ),
]


@commands.command()
def merge(
    adapters: Annotated[list[str], typer.Argument(help="Two or more LoRA folders, files, or hub ids.")],
    out: Annotated[Path, typer.Option("--out", help="A new folder.")],
    weights: Annotated[
        str | None, typer.Option("--weights", help="One weight an adapter, as 1,1,2; uniform by default.")
    ] = None,
    sum_: Annotated[
        bool, typer.Option("--sum", help="Add the adapters up instead of averaging them.")
    ] = False,
    no_normalise: Annotated[
        bool,
        typer.Option("--no-normalise", help="Take the weights as they are; negative ones subtract adapters."),
    ] = False,
    rename: Renames = None,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="exact, compressed, factor, ties, dare, dare-q, min-norm, nesterov, or search (with --by).",
        ),
    ] = "exact",
    rank: Annotated[int | None, typer.Option("--rank", help="Cut the result to this rank.")] = None,
    energy: Annotated[
        float | None, typer.Option("--energy", help="Or keep this share, such as 0.99.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="NAME=VALUE",
            help="An option of the method: density (ties, dare, dare-q), seed (dare, dare-q), q (dare-q), "
            "momentum and outer_lr (nesterov), divisions and prompts (search). May be repeated.",
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option("--state", help="nesterov: the output folder of the merge before, for its momentum."),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option("--by", help="search: the recipe with the base model and the rewards to measure by."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a key of that recipe. May be repeated.", metavar="KEY=VALUE"),
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option("--base-model", help="The base model's name, where the adapters differ in it."),
    ] = None,
    trust_rewards: Annotated[
        bool,
        typer.Option("--trust-rewards", help="search: run the code of the rewards of a run's recipe."),
    ] = False,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="peft, diffusers, comfyui or kohya: for one tool; by default for peft and diffusers.",
        ),
    ] = None,
    family: Annotated[
        str | None,
        typer.Option(
            "--family",
            help="comfyui and kohya: sd3, flux, hunyuan_video or wan, where the adapter does not tell.",
        ),
    ] = None,
) -> None:
    """Merge anyone's LoRA adapters into one, exactly, without the base model.

    Only `search` loads the base: it draws samples with every candidate's average and scores them.
    """
    from ..adapters.formats import in_format
    from ..adapters.merge import merge_adapters, read_options

    numbers = None if weights is None else _numbers(weights)
    if sum_ and numbers is not None:
        raise ParetuneError("--sum takes every adapter once; for weights give --no-normalise instead of it")
    raw = sum_ or no_normalise
    if numbers and not raw and min(numbers) < 0:
        raise ParetuneError(
            f"weight {min(numbers)} cannot be used in a mean, whose weights are not negative: "
            "--no-normalise subtracts an adapter"
        )
    if by is not None and (method != "search" or numbers or state or raw):
        raise ParetuneError("--by is for --method search, which finds the weights and keeps no state")
    given: dict[str, Any] = {"rank": rank, "energy": energy, "base_model": base_model}
    given |= {"renames": rename or (), **read_options(method, option or ())}

    def work(place: Path) -> Any:
        if by is not None:
            return _search(adapters, by, set_ or (), given | {"out": place}, trust_rewards)
        return merge_adapters(adapters, numbers, method, state=state, normalise=not raw, out=place, **given)

    if form is None and family is not None:
        raise ParetuneError("--family is for --format comfyui and kohya")
    if form is None:
        done = work(out)
    else:
        with in_format(out, form, family) as place:
            done = replace(work(place), folder=out)
    typer.echo(done.line())


def _search(
    adapters: list[str], recipe: str, overrides: Sequence[str], given: dict[str, Any], trusted: bool
) -> Any:
    from ..commands.merge_by_search import merge_by_search
    from ..recipes import find_recipe, in_run, load_config
    from ..rewards.trust import require_trust
    from .progress import make_progress

    found = find_recipe(recipe)
    config = load_config(found, overrides)
    require_trust(config, trusted or not in_run(found), f"a merge by {found}")
    with make_progress(Console(stderr=True), quiet=False, as_json=False) as progress:
        return merge_by_search(adapters, config, progress, **given)


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ParetuneError(f"--weights wants numbers such as 1,1,2, not {text!r}") from error


@commands.command()
def inspect(
    adapters: Annotated[list[str], typer.Argument(help="LoRA folders, files, or hub ids.")],
    heatmap: Annotated[Path | None, typer.Option("--heatmap", help="Write the cosines as a PNG.")] = None,
    rename: Renames = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Ranks, norms, energy by rank, and the cosines between adapters, from their factors alone."""
    from ..adapters import inspect as stage

    inspection = stage.inspect_adapters(adapters, rename or ())
    if as_json:
        typer.echo(json.dumps(inspection.to_dict(), indent=1))
    else:
        Console().print(stage.render(inspection))
    if heatmap is not None:
        typer.echo(f"heatmap: {stage.heatmap(inspection, heatmap)}", err=as_json)


@commands.command()
def fold(
    base: Annotated[Path, typer.Argument(help="A local folder of safetensors weights, no hub id.")],
    adapter: Annotated[str, typer.Argument(help="A LoRA folder, file, or hub id.")],
    out: Annotated[Path, typer.Option("--out", help="A new folder.")],
    rename: Renames = None,
) -> None:
    """Fold an adapter into a base model's files, shard by shard, never loading the model."""
    from ..adapters.fold import fold_adapter

    typer.echo(fold_adapter(base, adapter, out, renames=rename or ()).line())
