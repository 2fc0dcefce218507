"""The options of `paretune analyse`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

What = Annotated[str, typer.Argument(help="pairs, run, safety or losses.")]
Target = Annotated[str | None, typer.Argument(help="A file of preferences; a run; for safety also a model.")]
ModelOrRun = Annotated[
    str | None, typer.Option("--model", help="pairs: a run, a model, or a recipe's file that opens one.")
]
Reference = Annotated[
    str | None, typer.Option("--reference", help="Another model than the base to compare with.")
]
SafetyPrompts = Annotated[
    Path | None, typer.Option("--prompts", metavar="FILE", help="safety: harmful and harmless prompts.")
]
SafetyJudge = Annotated[
    str, typer.Option("--judge", help="safety: a reward that calls answers safe, or phrases (of refusal).")
]
Beta = Annotated[float, typer.Option("--beta", help="Of the implicit reward.")]
AnswersEach = Annotated[int, typer.Option("-n", "--count", help="safety: answers a prompt.", min=1, max=1000)]
AnalysisFile = Annotated[
    Path | None, typer.Option("--out", help="A new .json file; default: in the run, or beside the pairs.")
]
