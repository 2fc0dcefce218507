"""The methods. A method only builds a plan: which experts train on what, and what is averaged when.

All methods of a run draw as many samples as K rounds of MapReduce LoRA, provided that no prompt set is
shorter than an epoch (see `budget`).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from typing import Literal

from ..config import RunConfig
from ..training.objectives.settings import follows_course
from .budget import method_plan
from .plan import (
    METHOD_OBJECTIVES,
    ExpertTask,
    MethodPlan,
    Plan,
    Round,
    derive_seed,
    expert_epochs,
)  # fmt: skip


def mapreduce(config: RunConfig) -> MethodPlan:
    """K rounds: train one expert for each reward on the current model, average the experts, fold the average.

    The learning rate falls over all rounds together, as it falls over the whole training of every other
    method.
    """
    rounds: list[Round] = []
    for number in range(1, config.rounds + 1):
        parents = tuple(r.merged for r in rounds)
        tasks = tuple(_round_expert(config, number, reward, parents) for reward in config.rewards)
        merged = f"round-{number}/merged"
        rule = config.reduce
        rounds.append(
            Round(
                number, tasks, merged, _weights(config), rule.method, rule.step, rule.momentum,
                rule.searches_q,
            )
        )  # fmt: skip
    return method_plan(config, "mapreduce", tuple(rounds), tuple(r.merged for r in rounds))


def rewarded_soup(config: RunConfig) -> MethodPlan:
    """One round with the budget of K rounds, averaged once (Rame et al. 2023).

    If the recipe names it after MapReduce, its experts continue those of MapReduce's first round, K times as
    long in all, with the same seeds and learning rates; so the shared beginning is computed once. An expert
    of MapReduce that leans on other rewards is not the soup's, whose experts know one reward each. Nor is
    one that may be stopped before its last epoch, or whose loss depends on how many epochs are to come.
    """
    earlier = takewhile(lambda name: name != "rewarded_soup", config.methods)
    shared = config.stop_when is None and "mapreduce" in earlier and not follows_course(config)
    tasks = tuple(
        ExpertTask(
            folder=f"soup/experts/{reward}",
            rewards=(reward,),
            round=1,
            seed=derive_seed(config.seed, "round", 1, reward),
            epochs=expert_epochs(config, reward) * config.rounds,
            continues=f"round-1/experts/{reward}" if shared and config.lean(reward) == 0 else None,
            objective=config.rewards[reward].objective,
        )
        for reward in config.rewards
    )
    return _one_round(config, "rewarded_soup", "soup", tasks, _weights(config))


def morl_d(config: RunConfig) -> MethodPlan:
    """One policy on the mixed prompt sets; each prompt is scored by the reward of its set."""
    return _joint(config, "morl_d", "own")


def morl_dr(config: RunConfig) -> MethodPlan:
    """One policy on the mixed prompt sets; every sample is scored by the weighted sum of all rewards."""
    return _joint(config, "morl_dr", "all")


def conditioned(config: RunConfig) -> MethodPlan:
    """One policy that is given the weights of the rewards, drawn for each prompt (Golan et al. 2026)."""
    return _joint(config, "conditioned", "drawn")


def sequential(config: RunConfig) -> MethodPlan:
    """One adapter, trained on the first reward, then on the second, and so on in the recipe's order."""
    rounds: list[Round] = []
    epochs = 0
    for number, reward in enumerate(config.rewards, start=1):
        begins, epochs = epochs, epochs + expert_epochs(config, reward) * config.rounds
        task = ExpertTask(
            folder=f"sequential/experts/{reward}",
            rewards=(reward,),
            round=number,
            seed=derive_seed(config.seed, "sequential"),
            epochs=epochs,
            falls=(begins, epochs),
            continues=rounds[-1].tasks[0].folder if rounds else None,
            objective=config.rewards[reward].objective,
        )
        rounds.append(Round(number, (task,), f"sequential/merged-{number}", (1.0,)))
    return method_plan(config, "sequential", tuple(rounds), (rounds[-1].merged,))


def selma(config: RunConfig) -> MethodPlan:
    """Like SELMA (Li et al. 2024): supervised experts on the base's best samples, averaged once.

    Each expert draws as many samples as an expert of reinforcement learning would, all from the base. It is
    fine-tuned on the samples of each group that its reward scores best (objective `sft`).
    """
    tasks = tuple(
        ExpertTask(
            folder=f"selma/experts/{reward}",
            rewards=(reward,),
            round=1,
            seed=derive_seed(config.seed, "selma", reward),
            epochs=expert_epochs(config, reward) * config.rounds,
            objective=METHOD_OBJECTIVES["selma"],
        )
        for reward in config.rewards
    )
    return _one_round(config, "selma", "selma", tasks, _weights(config))


def _round_expert(config: RunConfig, number: int, reward: str, parents: tuple[str, ...]) -> ExpertTask:
    epochs = expert_epochs(config, reward)
    gone = (number - 1) * epochs
    constant = config.train.lr_scheduler == "constant"  # then another round changes none of the earlier ones
    lean = config.lean(reward)
    return ExpertTask(
        folder=f"round-{number}/experts/{reward}",
        rewards=(reward,),
        round=number,
        seed=derive_seed(config.seed, "round", number, reward),
        epochs=epochs,
        falls=None if constant else (-gone, config.rounds * epochs - gone),
        parents=parents,
        scoring="lean" if lean > 0 else "own",
        lean=lean,
        others=tuple(name for name in config.rewards if name != reward) if lean > 0 else (),
        objective=config.rewards[reward].objective,
    )


def _joint(
    config: RunConfig, name: str, scoring: Literal["own", "all", "drawn"]
) -> MethodPlan:
    """One expert of all rewards, with the samples of N experts.

    wide: as the same N devices would train it together: an epoch draws N times the prompts, and there are as
    many updates as an expert makes (of experts with different epochs the mean, rounded up). long: an epoch is
    that of an expert, and there are N times as many.
    """
    epochs = sum(expert_epochs(config, reward) for reward in config.rewards) * config.rounds
    width = len(config.rewards) if config.baselines.joint == "wide" else 1
    task = ExpertTask(
        folder=f"{name}/experts/joint",
        rewards=tuple(config.rewards),
        round=1,
        seed=derive_seed(config.seed, name),
        epochs=-(-epochs // width),
        width=width,
        scoring=scoring,
    )
    return _one_round(config, name, name, (task,), (1.0,))


def _one_round(
    config: RunConfig, name: str, folder: str, tasks: tuple[ExpertTask, ...], weights: tuple[float, ...]
) -> MethodPlan:
    merged = f"{folder}/merged"
    return method_plan(config, name, (Round(1, tasks, merged, weights),), (merged,))


def _weights(config: RunConfig) -> tuple[float, ...]:
    return tuple(config.weights().values())


METHODS: dict[str, Callable[[RunConfig], MethodPlan]] = {
    "mapreduce": mapreduce,
    "rewarded_soup": rewarded_soup,
    "morl_d": morl_d,
    "morl_dr": morl_dr,
    "sequential": sequential,
    "selma": selma,
    "conditioned": conditioned,
}


def build_plan(config: RunConfig) -> Plan:
    """The plan of every method that the recipe names."""
    return Plan(tuple(METHODS[name](config) for name in config.methods))
