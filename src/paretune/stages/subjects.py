"""Which models a run measures: the base, the experts, each method, and MapReduce after each round."""

from __future__ import annotations

from pathlib import Path

from ..config import RunConfig
from ..ops.rounds import measured_rounds
from ..planning.plan import MethodPlan, Plan, Round
from ..reward_tokens.pipelines import MOST_SCALED
from ..types import ParetuneError
from .evaluate import Subject
from .menu import menus_of, preferences, token_menu


def subjects_of(config: RunConfig, plan: Plan, run_folder: Path | None = None) -> tuple[Subject, ...]:
    """All subjects of a run, in the order of the tables.

    `expert:REWARD` is the expert with the soup's budget (one reward, K times as long) if there is a soup, and
    otherwise the expert of MapReduce's first round. `round-K:REWARD` is the expert of REWARD in round K on
    the model of that round; the tax matrix needs it, and fewer prompts are enough for it.

    Of more than eight rounds some are measured (`ops.rounds.measured_rounds`).

    run_folder: where the steps that the run has chosen are read, for the lattice.
    """
    full = config.evaluate.prompts
    uniform = tuple(config.weights().values())
    subjects = [Subject("base", "base", (), full, uniform)]
    experts = expert_round(plan)
    if experts:
        subjects += _experts(config, experts, full)
    for method in plan.methods:
        if method.name != "mapreduce":
            subject = Subject(method.name, method.name, method.model, full, uniform, weighted=method.weighted)
            subjects.append(subject)
    for method in plan.methods:
        if method.name == "mapreduce":
            subjects += _mapreduce(config, method, uniform)
    if config.tokens is not None:
        subjects += _tokens(config, full)
    return (*subjects, *_lattice(config, plan, run_folder))


def check_together(config: RunConfig) -> None:
    """Raise ParetuneError if the tokens of all rewards could not be measured together at their weights."""
    if config.tokens is None:
        return
    uses = token_menu(tuple(config.rewards)).at(tuple(config.weights().values())).tokens
    if sum(use.scale not in (0, 1) for use in uses) > MOST_SCALED:
        raise ParetuneError(
            "tokens: all tokens together are measured at the rewards' weights, and at most "
            f"{MOST_SCALED} of them may have a weight between 0 and the largest one; give more rewards the "
            "same weight, or leave tokens out"
        )


def _tokens(config: RunConfig, prompts: int) -> list[Subject]:
    """Each token alone on the base, and all tokens together at the recipe's weights."""
    menu = token_menu(tuple(config.rewards))
    alone = [(f"rate:{r}", _one_hot(config, r)) for r in config.rewards]
    points = [*alone, ("rate", tuple(config.weights().values()))]
    return [
        Subject(name, name, (), prompts, preference, tokens=menu.at(preference).tokens)
        for name, preference in points
    ]


def _lattice(config: RunConfig, plan: Plan, run_folder: Path | None) -> list[Subject]:
    """Every menu over the grid of preferences."""
    if not config.evaluate.lattice:
        return []
    subjects = []
    menus = menus_of(plan, run_folder)
    if config.tokens is not None:
        menus.append(token_menu(tuple(config.rewards)))
    for menu in menus:
        name = f"mapreduce@{config.rounds}" if menu.method == "mapreduce" else menu.method
        for preference in preferences(tuple(config.weights().values()), config.evaluate.lattice):
            mixed = menu.at(preference)
            shares = "-".join(f"{share:.3g}" for share in preference)
            subjects.append(
                Subject(
                    f"{name}~{shares}", name, mixed.adapters, config.evaluate.prompts, preference,
                    scales=mixed.scales, lattice=True, tokens=mixed.tokens, weighted=mixed.weighted,
                )
            )  # fmt: skip
    return subjects


def expert_round(plan: Plan) -> Round | None:
    """The round whose experts represent training on one reward alone; None if no method has such experts."""
    methods = {m.name: m for m in plan.methods}
    owner = methods.get("rewarded_soup") or methods.get("mapreduce")
    return owner.rounds[0] if owner else None


def _experts(config: RunConfig, round_: Round, prompts: int) -> list[Subject]:
    return [
        Subject(
            f"expert:{task.reward}", f"expert:{task.reward}", (*task.parents, task.folder), prompts,
            _one_hot(config, task.reward),
        )
        for task in round_.tasks
    ]  # fmt: skip


def _mapreduce(
    config: RunConfig, plan: MethodPlan, uniform: tuple[float, ...]
) -> list[Subject]:
    """MapReduce after the rounds that are measured, and the experts of those whose start is measured too."""
    few = max(1, config.evaluate.prompts // 2)
    subjects: list[Subject] = []
    merged: list[str] = []
    measured = measured_rounds(len(plan.rounds))
    for round_ in plan.rounds:
        merged.append(round_.merged)
        if round_.number not in measured:
            continue
        for task in round_.tasks if round_.number - 1 in (0, *measured) else ():
            name = f"round-{round_.number}:{task.reward}"
            folders = (*task.parents, task.folder)
            subjects.append(
                Subject(name, name, folders, few, _one_hot(config, task.reward), round_.number)
            )
        name = f"mapreduce@{round_.number}"
        subjects.append(
            Subject(name, name, tuple(merged), config.evaluate.prompts, uniform, round_.number)
        )
    return subjects


def _one_hot(config: RunConfig, reward: str) -> tuple[float, ...]:
    return tuple(float(name == reward) for name in config.rewards)
