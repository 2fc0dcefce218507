"""The options that commands share: the same word means the same on every command, and is described once.

`--quiet`: nothing but the result. `--json`: stdout is one JSON value, or, while a run reports its progress,
one JSON object a line, the result last. `--set` is wherever a recipe is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..recipes import shipped_recipes


def _recipe_names(incomplete: str) -> list[str]:
    """For shell completion."""
    return [name for name in shipped_recipes() if name.startswith(incomplete)]


Recipe = Annotated[
    str,
    typer.Argument(
        help="A YAML recipe, or the name of one that ships with paretune.", autocompletion=_recipe_names
    ),
]
RunFolder = Annotated[Path, typer.Argument(help="A finished run.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a key: --set train.epochs=4. May be repeated.", metavar="KEY=VALUE"),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped or killed.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but the result.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
TrustRewards = Annotated[
    bool,
    typer.Option("--trust-rewards", help="Run the code of a run's rewards that are files or modules."),
]
Verify = Annotated[
    bool, typer.Option("--verify", help="Hash every file of a run, not only those whose size or time differ.")
]
NewFolder = Annotated[Path, typer.Option("--out", help="A new folder.")]
Renames = Annotated[
    list[str] | None,
    typer.Option(
        "--rename",
        metavar="OLD=NEW",
        help="Call modules otherwise, such as model.layers=model.language_model.layers. May be repeated.",
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="peft, diffusers, comfyui or kohya: for one tool; by default for peft and diffusers.",
    ),
]
