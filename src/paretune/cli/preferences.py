"""The commands about preferences: make them, and say what they hold and whether a model learned them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from ..config import RunConfig
from ..recipes import find_recipe, in_run, load_config
from .analysis_options import (
    AnalysisFile,
    AnswersEach,
    Beta,
    ModelOrRun,
    Reference,
    SafetyJudge,
    SafetyPrompts,
    Target,
    What,
)
from .options import AsJson, Quiet, Recipe, Set, TrustRewards
from .pair_options import (
    Adapter,
    Answers,
    Contrast,
    Count,
    Embed,
    Form,
    Guide,
    GuideBeta,
    Judge,
    LadderBy,
    Limit,
    Out,
    Reward,
    Rollouts,
    SafetyPrompt,
    Seed,
    StepMark,
    StepsLikeBest,
    Threshold,
    Through,
)
from .pair_summary import pair_lines
from .printing import now_and_then, print_json, speaker

commands = typer.Typer()


@commands.command()
def pairs(
    recipe: Recipe,
    reward: Reward,
    out: Out,
    count: Count = 4,
    form: Form = "extremes",
    adapter: Adapter = None,
    answers: Answers = None,
    threshold: Threshold = 0.5,
    safety_prompt: SafetyPrompt = "",
    judge: Judge = "",
    rollouts: Rollouts = 4,
    step_mark: StepMark = "\n",
    contrast: Contrast = None,
    guide: Guide = None,
    guide_beta: GuideBeta = 0.1,
    embed: Embed = None,
    steps_like_best: StepsLikeBest = False,
    through: Through = None,
    ladder_by: LadderBy = "score",
    limit: Limit = 0,
    seed: Seed = 0,
    set_: Set = None,
    trust_rewards: TrustRewards = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Draw and score samples, and write them as lists from best to worst, to learn preferences from."""
    from ..commands.answer_pairs.options import AnswerOptions
    from ..commands.make_pairs import Drawing

    config = _trusted(recipe, set_, trust_rewards, quiet)
    scorer = None if through is None else _trusted(through, None, trust_rewards, quiet)
    options = AnswerOptions(
        answers, threshold, safety_prompt, judge, rollouts, step_mark, contrast, guide, guide_beta, embed,
        steps_like_best, scorer, ladder_by,
    )  # fmt: skip
    _make(config, Drawing(reward, count, form, limit, seed, adapter), options, out, quiet, as_json)


def _trusted(recipe: str, set_: list[str] | None, trust_rewards: bool, quiet: bool) -> RunConfig:
    """A recipe. Code of a run's own recipe is not run unless the user says so."""
    from ..rewards.trust import registered_only

    found = find_recipe(recipe)
    config = load_config(found, set_ or ())
    return registered_only(config, trust_rewards or not in_run(found), speaker(quiet))


def _make(config: RunConfig, drawing: Any, options: Any, out: Path, quiet: bool, as_json: bool) -> None:
    """Make the file by what the recipe's model draws, and tell what came out."""
    from ..commands.answer_pairs.make import make_answer_pairs
    from ..commands.answer_pairs.options import objective_for, refuse_for_pictures
    from ..commands.make_pairs import make_pairs
    from ..samples.media import medium_of

    texts, progress = medium_of(config.model).lines, now_and_then(speaker(quiet))
    if texts:
        made = make_answer_pairs(config, drawing, options, out, progress)
    else:
        refuse_for_pictures(options)
        made = make_pairs(config, drawing, out, progress)
    if as_json:
        print_json(made)
        return
    typer.echo(f"pairs: {out} ({made['lists']:,} lists, {made['ties']:,} ties left out)")
    for note in made.get("notes", ()):
        speaker(quiet)(note)
    for line in [] if quiet else pair_lines(made):
        typer.echo(line)
    key, objective = "pairs", "diffusion_dpo"
    if texts:
        key, objective = "prompts", objective_for(drawing.form, options)
    speaker(quiet)(f"now, in a recipe: rewards.{drawing.reward}.{key}: {out} and objective: {objective}")


@commands.command()
def analyse(
    what: What,
    target: Target = None,
    model: ModelOrRun = None,
    reference: Reference = None,
    adapter: Adapter = None,
    prompts: SafetyPrompts = None,
    judge: SafetyJudge = "phrases",
    threshold: Threshold = 0.5,
    beta: Beta = 0.1,
    count: AnswersEach = 1,
    limit: Limit = 0,
    out: AnalysisFile = None,
    trust_rewards: TrustRewards = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Say what preferences hold and whether a model learned them: figures with their counts and intervals.

    analyse pairs FILE --model RUN; analyse run RUN; analyse safety RUN --prompts FILE; analyse losses
    """
    from ..commands.analyse.make import analyse as carry_out
    from ..commands.analyse.options import Asked

    asked = Asked(model, reference, adapter, prompts, judge, threshold, beta, limit, count, trust_rewards)
    found = carry_out(what, target, asked, out)
    if as_json:
        print_json(found)
        return
    from .analysis_tables import credits_of, entailed_table, figures_table, losses_table

    told = (
        [losses_table(found), entailed_table(found)]
        if what == "losses"
        else [figures_table(found), *credits_of(found)]
    )
    Console(width=None if sys.stdout.isatty() else 160).print(*told, sep="\n")
    for note in found.get("notes", ()):
        speaker(quiet)(f"note: {note}")
    if found["file"] is not None:
        typer.echo(f"analysis: {found['file']}")
