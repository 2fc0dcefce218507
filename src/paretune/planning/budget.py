"""The budget: the samples and updates of an expert, a method and a plan, and what choosing an average costs.

An epoch draws no prompt twice. So a prompt file that is shorter than its share of `train.prompts_per_epoch`
gives fewer prompts, and training is shorter than the recipe's figures say. The budget counts what is really
drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from ..config import RunConfig
from ..data.preferences import load_preferences
from ..data.prompts import load_prompts
from ..data.remote import is_remote
from ..ops.dealing import deal, dealt_always
from ..ops.distilling import DISTIL, Distilling
from ..ops.merging import DIVISIONS, PROMPTS
from ..training.objectives.settings import draws_samples
from ..training.objectives.table import find_objective
from ..types import ParetuneError
from .plan import ExpertTask, MethodPlan, Plan, Round, derive_seed

JOINT = {"morl_d", "morl_dr", "conditioned"}


class Budget(NamedTuple):
    """samples: drawn in training, or pairs trained on. updates: the most, if no group is left out.

    scores: how often a reward scores a sample, at most. reduce_samples: drawn to choose how experts are
    averaged, each scored by one reward, or to distil them.
    """

    samples: int
    updates: int
    scores: int
    reduce_samples: int = 0


def set_sizes(config: RunConfig, hub: bool = True) -> dict[str, int]:
    """The number of prompts, or lists of preferences, in each reward's training set.

    Sets that cannot be read are left out.

    hub: whether to load datasets of the hub, which downloads them; otherwise they are left out too.
    """
    sizes: dict[str, int] = {}
    for name, reward_config in config.rewards.items():
        source = reward_config.pairs or reward_config.prompts
        if is_remote(source) and not hub:
            continue
        try:
            read = load_prompts if reward_config.pairs is None else load_preferences
            sizes[name] = len(read(source))
        except ParetuneError:  # the check of the prompts reports it
            continue
    return sizes


def method_plan(
    config: RunConfig, name: str, rounds: tuple[Round, ...], model: tuple[str, ...]
) -> MethodPlan:
    """A method with its budget, if no prompt set is short.

    model: the folders of the adapters whose sum is the method's model.
    """
    return MethodPlan(name, rounds, model, *_of_rounds(config, rounds, {}))


def counted(config: RunConfig, plan: Plan, sizes: Mapping[str, int]) -> Plan:
    """The plan with the budget for prompt sets of these sizes. A set without a size counts as long enough."""
    return Plan(
        tuple(
            replace(m, **_of_rounds(config, m.rounds, sizes)._asdict()) for m in plan.methods
        )
    )


def expert_budget(
    config: RunConfig, task: ExpertTask, sizes: Mapping[str, int], begin: int = 0
) -> Budget:
    """The budget of an expert from epoch `begin` to its last one. sizes: see `set_sizes`."""
    prompts = _prompts(config, task, sizes, begin)
    given = len(task.rewards) == 1 and config.rewards[task.reward].pairs is not None
    per_prompt = config.train.group_size if draws_samples(config.objective) and not given else 1
    updates = (_updates(config, count) * epochs for count, epochs in prompts.items())
    samples = sum(count * epochs for count, epochs in prompts.items()) * per_prompt
    asked = len(task.scored_by) if draws_samples(config.objective) and not given else 0
    return Budget(samples, sum(updates), samples * asked)


def short_sets(config: RunConfig, sizes: Mapping[str, int]) -> list[str]:
    """A line for every training set that has fewer prompts than an epoch asks for."""
    singly = bool(set(config.methods) - JOINT)
    singly |= config.baselines.joint == "wide"
    wanted = config.train.prompts_per_epoch // (1 if singly else len(config.rewards))
    return [
        f"{config.rewards[name].pairs or config.rewards[name].prompts} holds {size} "
        f"{'lists' if config.rewards[name].pairs else 'prompts'}, and an epoch asks for {wanted} "
        f"(train.prompts_per_epoch): only {size} are drawn for {name}"
        for name, size in sizes.items()
        if size < wanted
    ]


def check_even(config: RunConfig, sizes: Mapping[str, int]) -> None:
    """Raise ParetuneError if a language model's epochs cannot all be divided alike, which TRL needs."""
    train = config.train
    sets: list[Sequence[str]] = [(name,) for name in config.rewards] if set(config.methods) - JOINT else []
    if set(config.methods) & JOINT:
        sets.append(tuple(config.rewards))
    for names in sets:
        wide = config.baselines.joint == "wide" and len(names) > 1
        asked = train.prompts_per_epoch * (len(names) if wide else 1)
        prompts = dealt_always(asked, _lengths(config, names, sizes))
        if prompts is None:
            raise ParetuneError(
                f"train.prompts_per_epoch: {asked} prompts of {len(names)} sets, some of "
                f"them short, are not as many every epoch, which TRL needs: give a multiple of {len(names)}"
            )
        samples = prompts * (train.group_size if draws_samples(config.objective) else 1)
        if samples % train.updates_per_epoch:
            raise ParetuneError(
                f"train.updates_per_epoch: {train.updates_per_epoch} does not divide the {samples} samples "
                f"of an epoch of {', '.join(names)}, which TRL needs"
            )


def _of_rounds(config: RunConfig, rounds: Sequence[Round], sizes: Mapping[str, int]) -> Budget:
    """The budget of the whole training of every expert; a shared beginning counts for each of them."""
    length = {task.folder: task.epochs for r in rounds for task in r.tasks}
    parts = [
        expert_budget(config, task, sizes, length.get(task.continues or "", 0))
        for r in rounds for task in r.tasks
    ]  # fmt: skip
    chosen = sum(chosen_by(config, round_, sizes) for round_ in rounds)
    beside = chosen + sum(distilled_on(config, round_, sizes) for round_ in rounds)
    total = Budget(*(sum(column) for column in zip(*parts, strict=True)))
    steps = sum(Distilling.of(config.reduce.options).steps for r in rounds if r.reduce == DISTIL)
    return total._replace(
        scores=total.scores + chosen, reduce_samples=beside, updates=total.updates + steps
    )


def distilled_on(config: RunConfig, round_: Round, sizes: Mapping[str, int]) -> int:
    """The samples that the student of a round draws, which no reward scores; about, where sets are short."""
    if round_.reduce != DISTIL:
        return 0
    settings, count = Distilling.of(config.reduce.options), len(round_.tasks)
    even, left = divmod(settings.batch, count)
    each = [min(even, _prompts_of(config, task.reward, sizes, even)) for task in round_.tasks]
    return settings.steps * (sum(each) + (left if sum(each) == even * count else 0))


def _prompts_of(config: RunConfig, reward: str, sizes: Mapping[str, int], asked: int) -> int:
    """The prompts of a reward's set; as many as are asked for where only the size of its pairs is known."""
    return asked if config.rewards[reward].pairs is not None else sizes.get(reward, asked)


def chosen_by(config: RunConfig, round_: Round, sizes: Mapping[str, int]) -> int:
    """The samples that a round draws to choose the weights of its experts, and the step of their average."""
    def drawn(prompts: int) -> int:
        """Of one candidate."""
        sets = (_prompts_of(config, name, sizes, prompts) for name in config.rewards)
        return config.evaluate.samples * sum(min(prompts, size) for size in sets)

    samples, options = 0, config.reduce.options
    if round_.reduce == "search":
        divisions, experts = int(options.get("divisions", DIVISIONS)), len(round_.tasks)
        candidates = math.comb(divisions + experts - 1, experts - 1)
        samples += candidates * drawn(int(options.get("prompts", PROMPTS)))
    if isinstance(round_.step, tuple):
        samples += len(round_.step) * drawn(config.reduce.prompts)
    return samples


def _prompts(
    config: RunConfig, task: ExpertTask, sizes: Mapping[str, int], begin: int
) -> dict[int, int]:
    """The number of prompts in an epoch -> the number of epochs that have as many."""
    count, lengths = config.train.prompts_per_epoch * task.width, _lengths(config, task.rewards, sizes)
    always = dealt_always(count, lengths)
    if always is not None:
        return {always: task.epochs - begin}
    found: dict[int, int] = {}
    for epoch in range(begin, task.epochs):  # the number is random, and the epoch's seed determines it
        generator = torch.Generator().manual_seed(derive_seed(task.seed, epoch))
        drawn = sum(deal(count, lengths, generator))
        found[drawn] = found.get(drawn, 0) + 1
    return found


def _lengths(config: RunConfig, names: Sequence[str], sizes: Mapping[str, int]) -> list[int]:
    return [sizes.get(name, config.train.prompts_per_epoch) for name in names]


def _updates(config: RunConfig, prompts: int) -> int:
    """Updates of an epoch. Each gets the same number of whole groups, except that the last may get fewer.

    TRL divides an epoch's answers and not its groups, and makes all of the updates.
    """
    if "texts" in find_objective(config.objective.name).trainers:
        return config.train.updates_per_epoch
    return -(-prompts // -(-prompts // config.train.updates_per_epoch))
