"""The commands that watch a run: how far it is, and what an expert's training tells."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from .options import AsJson, Quiet
from .printing import print_json, print_line, shown

commands = typer.Typer()
Watched = Annotated[Path, typer.Argument(help="A run's folder, also while the run works.")]


@commands.command()
def status(run_folder: Watched, quiet: Quiet = False, as_json: AsJson = False) -> None:
    """Say how far a run is, and which process works on it."""
    from ..commands import watch_run

    found = watch_run.status(run_folder)
    if as_json:
        print_json(asdict(found))
        return
    process = f" (process {found.process})" if found.process else ""
    typer.echo(f"{run_folder} {found.state}{process}")
    if quiet:
        return
    table = Table(box=None, pad_edge=False)
    for name in ("task", "state", "done"):
        table.add_column(name)
    for part in found.parts:
        table.add_row(part.folder, part.state, f"{part.done}/{part.of}")
    Console().print(table)


@commands.command()
def logs(
    run_folder: Watched,
    expert: Annotated[str, typer.Argument(help="A reward: its latest expert; or an expert's folder.")],
    follow: Annotated[bool, typer.Option("--follow", help="Wait for what comes next, to its end.")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Print what an expert's training tells, an epoch a line."""
    from ..commands import watch_run

    for row in watch_run.logs(run_folder, expert, follow):
        if as_json:
            print_line(row)
        else:
            typer.echo(shown(row["notice"]) if "notice" in row else _line(row))


def detached(words: list[str], out: Path, quiet: bool, as_json: bool) -> None:
    """Start a run apart from the terminal and say how it is watched and stopped."""
    from ..commands.detach import detach

    begun = detach([*words, "--json"], out)
    if as_json:
        print_json({"process": begun.process, "log": str(begun.log)})
    elif quiet:
        typer.echo(begun.process)
    else:
        typer.echo(
            f"{out} is worked on by process {begun.process}: `paretune status {out}` says how far it is, "
            f"`kill -INT {begun.process}` stops it at the next checkpoint"
        )


def _line(row: dict[str, Any]) -> str:
    """The numbers of a row, its epoch first."""
    told = {"update": row.get("update"), **row}
    return "  ".join(f"{name} {_shown(value)}" for name, value in told.items())


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
