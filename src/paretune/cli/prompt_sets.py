"""The command of public prompt sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ..types import ParetuneError
from .options import AsJson, Quiet
from .printing import print_json, speaker

commands = typer.Typer()


@commands.command()
def prompts(
    name: Annotated[
        str | None, typer.Argument(help="A set of the table, hf:OWNER/NAME@SPLIT[:COLUMN], or a file.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The new .jsonl file.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="Which part of the set.")] = None,
    limit: Annotated[int, typer.Option("--limit", help="So many prompts; 0: all.")] = 0,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Draw them at random; without it the first ones are taken.")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """List public prompt sets with licence, size and source, or download one and write it as JSON Lines."""
    from ..commands.write_prompts import listed, write_prompts

    if name is None:
        rows = listed()
        if as_json:
            print_json([vars(row) for row in rows])
            return
        table = Table("set", "size", "licence", "source", "what")
        for row in rows:
            size = "not known here" if row.size is None else f"{row.size / 1e6:,.2f} MB"
            table.add_row(row.spec, size, row.licence, row.source, row.about)
        Console(width=None if Console().is_terminal else 200).print(table)
        return
    if out is None:
        raise ParetuneError("give --out FILE.jsonl, where the prompts are written")
    told = write_prompts(name, out, split, limit, seed, speaker(quiet))
    if as_json:
        print_json({"file": str(out), **told})
        return
    typer.echo(f"prompts: {out} ({told['prompts']:,} of {told['of']:,})")
    if "licence" in told:
        speaker(quiet)(f"licence: {told['licence']}; the source is in {out}.source.json")
