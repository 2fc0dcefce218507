"""Each method only builds a plan: which experts train on what, and what is averaged when."""

from __future__ import annotations

from collections.abc import Callable

from .config import RunConfig
from .plan import ExpertTask, MethodPlan, Plan, Round, derive_seed, expert_epochs, method_plan


def mapreduce(config: RunConfig) -> MethodPlan:
    """K rounds of: train one expert a reward on the current model, average, fold."""
    rounds: list[Round] = []
    for number in range(1, config.rounds + 1):
        parents = tuple(r.merged for r in rounds)
        tasks = tuple(
            ExpertTask(
                folder=f"round-{number}/experts/{reward}",
                reward=reward,
                round=number,
                seed=derive_seed(config.seed, "round", number, reward),
                epochs=expert_epochs(config, reward),
                parents=parents,
            )
            for reward in config.rewards
        )
        rounds.append(Round(number, tasks, f"round-{number}/merged"))
    return method_plan(config, "mapreduce", tuple(rounds))


def rewarded_soup(config: RunConfig) -> MethodPlan:
    """One round with the whole budget of K (Rame et al. 2023).

    Its experts are those of MapReduce's first round, trained on K times as long from the same seed, so
    the shared beginning is computed once.
    """
    tasks = tuple(
        ExpertTask(
            folder=f"soup/experts/{reward}",
            reward=reward,
            round=1,
            seed=derive_seed(config.seed, "round", 1, reward),
            epochs=expert_epochs(config, reward) * config.rounds,
            parents=(),
            continues=f"round-1/experts/{reward}",
        )
        for reward in config.rewards
    )
    return method_plan(config, "rewarded_soup", (Round(1, tasks, "soup/merged"),))


METHODS: dict[str, Callable[[RunConfig], MethodPlan]] = {
    "mapreduce": mapreduce,
    "rewarded_soup": rewarded_soup,
}


def build_plan(config: RunConfig) -> Plan:
    """The plan of every method that the recipe names."""
    return Plan(tuple(METHODS[name](config) for name in config.methods))
