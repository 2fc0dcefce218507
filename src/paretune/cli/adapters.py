"""The commands for anyone's adapters, which know of no run: merge, inspect, fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ..types import ParetuneError
from .options import AsJson, Format, NewFolder, Quiet, Renames, Set, TrustRewards
from .printing import console, print_json, print_line, speaker
from .progress import make_progress

commands = typer.Typer()
Adapters = Annotated[list[str], typer.Argument(help="Two or more LoRA folders, files, or hub ids.")]
Weights = Annotated[
    str | None, typer.Option("--weights", help="One weight an adapter, as 1,1,2; uniform by default.")
]
Sum = Annotated[bool, typer.Option("--sum", help="Add the adapters up instead of averaging them.")]
NoNormalise = Annotated[
    bool,
    typer.Option("--no-normalise", help="Take the weights as they are; negative ones subtract adapters."),
]
Method = Annotated[
    str,
    typer.Option(
        "--method",
        help="exact, compressed, factor, ties, dare, dare-q, min-norm, slerp, nesterov, "
        "or search (with --by); distil is for runs alone.",
    ),
]
Rank = Annotated[int | None, typer.Option("--rank", help="Cut the result to this rank.")]
Energy = Annotated[float | None, typer.Option("--energy", help="Or keep this share, such as 0.99.")]
MethodOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="NAME=VALUE",
        help="An option of the method: density (ties, dare, dare-q), seed (dare, dare-q), q (dare-q), "
        "momentum and outer_lr (nesterov), divisions and prompts (search). May be repeated.",
    ),
]
State = Annotated[
    Path | None,
    typer.Option("--state", help="nesterov: the output folder of the merge before, for its momentum."),
]
By = Annotated[
    str | None,
    typer.Option("--by", help="search: the recipe with the base model and the rewards to measure by."),
]
BaseModel = Annotated[
    str | None,
    typer.Option("--base-model", help="The base model's name, where the adapters differ in it."),
]
FamilyName = Annotated[
    str | None,
    typer.Option(
        "--family",
        help="comfyui and kohya: the family of the base, where the adapter does not tell.",
    ),
]


@commands.command()
def merge(
    adapters: Adapters,
    out: NewFolder,
    weights: Weights = None,
    sum_: Sum = False,
    no_normalise: NoNormalise = False,
    rename: Renames = None,
    method: Method = "exact",
    rank: Rank = None,
    energy: Energy = None,
    option: MethodOptions = None,
    state: State = None,
    by: By = None,
    set_: Set = None,
    base_model: BaseModel = None,
    trust_rewards: TrustRewards = False,
    form: Format = None,
    family: FamilyName = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Merge anyone's LoRA adapters into one, exactly, without the base model.

    Only `search` loads the base: it draws samples with every candidate's average and scores them.
    """
    from ..adapters.formats import FILES, in_format
    from ..adapters.merge import merge_adapters, read_options

    raw = sum_ or no_normalise
    numbers = _read_weights(weights, sum_, raw)
    _check_search(by, set_, method, bool(numbers or state or raw))
    if family is not None and (form is None or form in FILES):
        raise ParetuneError("--family is for --format comfyui and kohya")
    given: dict[str, Any] = {"rank": rank, "energy": energy, "base_model": base_model}
    given |= {"renames": rename or (), **read_options(method, option or ())}

    def work(place: Path) -> Any:
        if by is None:
            return merge_adapters(adapters, numbers, method, state=state, normalise=not raw, out=place,
                                  **given)  # fmt: skip
        with make_progress(console, quiet, as_json) as progress:
            return _search(adapters, by, set_ or (), progress, given | {"out": place}, trust_rewards)

    if form is None:
        done = work(out)
    else:
        with in_format(out, form, family) as place:
            done = replace(work(place), folder=out)
    if as_json:  # a search has printed lines of progress before
        print_line(vars(done) | {"folder": str(done.folder)})
    else:
        typer.echo(done.line())


def _read_weights(weights: str | None, sum_: bool, raw: bool) -> list[float] | None:
    """The numbers of --weights, which go with the other flags."""
    numbers = None if weights is None else _numbers(weights)
    if sum_ and numbers is not None:
        raise ParetuneError("--sum takes every adapter once; for weights give --no-normalise instead of it")
    if numbers and not raw and min(numbers) < 0:
        raise ParetuneError(
            f"weight {min(numbers)} cannot be used in a mean, whose weights are not negative: "
            "--no-normalise subtracts an adapter"
        )
    return numbers


def _check_search(by: str | None, set_: Sequence[str] | None, method: str, weighed: bool) -> None:
    """--by and --set are for a search. weighed: whether weights or a state were given."""
    if by is not None and (method != "search" or weighed):
        raise ParetuneError("--by is for --method search, which finds the weights and keeps no state")
    if by is None and set_:
        raise ParetuneError("--set overrides a key of the recipe that --by names: there is none")


def _search(
    adapters: list[str], recipe: str, overrides: Sequence[str], progress: Any, given: dict[str, Any],
    trusted: bool,
) -> Any:  # fmt: skip
    from ..commands.merge_by_search import merge_by_search
    from ..recipes import find_recipe, in_run, load_config
    from ..rewards.trust import require_trust

    found = find_recipe(recipe)
    config = load_config(found, overrides)
    require_trust(config, trusted or not in_run(found), f"a merge by {found}")
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
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Ranks, norms, energy by rank, and the cosines between adapters, from their factors alone."""
    from ..adapters import inspect as stage

    inspection = stage.inspect_adapters(adapters, rename or ())
    if as_json:
        print_json(inspection.to_dict())
    else:
        Console().print(stage.render(inspection))
    if heatmap is not None:
        line = f"heatmap: {stage.heatmap(inspection, heatmap)}"
        speaker(quiet)(line) if as_json else typer.echo(line)


@commands.command()
def fold(
    base: Annotated[Path, typer.Argument(help="A local folder of safetensors weights, no hub id.")],
    adapter: Annotated[str, typer.Argument(help="A LoRA folder, file, or hub id.")],
    out: NewFolder,
    rename: Renames = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Fold an adapter into a base model's files, shard by shard, never loading the model."""
    from ..adapters.fold import fold_adapter

    done = fold_adapter(base, adapter, out, renames=rename or ())
    if as_json:
        print_json(vars(done) | {"folder": str(done.folder)})
    else:
        typer.echo(done.line())
