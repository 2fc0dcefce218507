"""The options of `paretune pairs`. `commands` separates those that only a language model takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Reward = Annotated[str, typer.Option("--reward", help="Whose prompts are drawn, and who orders a list.")]
Out = Annotated[Path, typer.Option("--out", help="The new .jsonl file; samples lie beside it.")]
Count = Annotated[int, typer.Option("-n", "--count", help="Samples a prompt.")]
Form = Annotated[
    str,
    typer.Option(
        "--form",
        help="extremes: best and worst; list: all; wins: all, by rivals beaten on all rewards. Of answers "
        "also: ladder, triple, correct, steps, safety, given, rewrite.",
    ),
]
Adapter = Annotated[
    str | None, typer.Option("--adapter", help="A LoRA folder, file or hub id over the base.")
]
Answers = Annotated[
    Path | None, typer.Option("--answers", metavar="FILE", help="Other models' answers, with sources.")
]
Threshold = Annotated[
    float, typer.Option("--threshold", help="Least score of a right or safe answer; the greatest of a cost.")
]
SafetyPrompt = Annotated[
    str, typer.Option("--safety-prompt", help="Words before a prompt that make the model answer safely.")
]
Judge = Annotated[
    str, typer.Option("--judge", help="steps: the reward that judges steps; rewrite: the one that orders.")
]
Rollouts = Annotated[int, typer.Option("--rollouts", help="steps: answers drawn after each step.")]
StepMark = Annotated[str, typer.Option("--step-mark", help="What ends a step.")]
Contrast = Annotated[
    tuple[str, str] | None,
    typer.Option("--contrast", help="Adapters of right and of wrong answers: token weights for cdpo."),
]
Guide = Annotated[
    str | None, typer.Option("--guide", help="An adapter that guides: token weights for tgdpo.")
]
GuideBeta = Annotated[float, typer.Option("--guide-beta", help="What its log-ratio is times.")]
Embed = Annotated[
    str | None, typer.Option("--embed", help="A text encoder, by which drift is measured for sem_dpo_text.")
]
StepsLikeBest = Annotated[
    bool, typer.Option("--steps-like-best", help="Weights of steps for tree_tpo.")
]
Through = Annotated[
    str | None, typer.Option("--through", help="rewrite: the recipe of pictures that scores a prompt.")
]
LadderBy = Annotated[
    str, typer.Option("--ladder-by", help="What orders the stages of a ladder: score, or reference.")
]
Limit = Annotated[int, typer.Option("--limit", help="The first so many prompts; 0: all.")]
Seed = Annotated[int, typer.Option("--seed", help="The same seed gives the same bytes.")]
