"""Which models a run measures: the base, the experts, the soup, and MapReduce after each round."""

from __future__ import annotations

from ..config import RunConfig
from ..plan import MethodPlan, Plan, Round
from .evaluate import Subject


def subjects_of(config: RunConfig, plan: Plan) -> tuple[Subject, ...]:
    """In the order of the tables.

    `expert:REWARD` is the expert with the soup's budget where there is a soup (one reward, K times as
    long), else that of the first round. `round-K:REWARD` is what the tax matrix needs: expert REWARD of
    round K on that round's model, on fewer prompts.
    """
    full = config.evaluate.prompts
    uniform = tuple(config.weights().values())
    methods = {m.name: m for m in plan.methods}
    soup = methods.get("rewarded_soup")
    mapreduce = methods["mapreduce"]
    subjects = [Subject("base", "base", (), full, uniform)]
    subjects += _experts(config, (soup or mapreduce).rounds[0], full)
    if soup:
        subjects.append(
            Subject("rewarded_soup", "rewarded_soup", (soup.rounds[0].merged,), full, uniform)
        )
    subjects += _mapreduce(config, mapreduce, uniform)
    return tuple(subjects)


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
    few = max(1, config.evaluate.prompts // 2)
    subjects: list[Subject] = []
    merged: list[str] = []
    for round_ in plan.rounds:
        for task in round_.tasks:
            name = f"round-{round_.number}:{task.reward}"
            folders = (*task.parents, task.folder)
            subjects.append(
                Subject(name, name, folders, few, _one_hot(config, task.reward), round_.number)
            )
        merged.append(round_.merged)
        name = f"mapreduce@{round_.number}"
        subjects.append(
            Subject(name, name, tuple(merged), config.evaluate.prompts, uniform, round_.number)
        )
    return subjects


def _one_hot(config: RunConfig, reward: str) -> tuple[float, ...]:
    return tuple(float(name == reward) for name in config.rewards)
