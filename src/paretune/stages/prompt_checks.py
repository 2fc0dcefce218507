"""Every prompt of a recipe is shown to all that will train on it or score it, before anything is trained.

`check_prompts` asks the loaded rewards, as a run begins; `check_unloaded` asks what can be asked without
loading a network or the hub, for `paretune plan`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import RunConfig
from ..data.prompts import PREFIX, load_prompts, prompt_file
from ..rewards.base import check_spec, find_reward, is_own, load_reward, reward_file
from ..rewards.checks import Check, applies_to, first_refused, refusal
from ..training.trainers import objective_check
from ..types import ParetuneError, Prompt, Reward

Refused = tuple[int | None, str] | None  # a prompt's number from 0, and why


def check_prompts(config: RunConfig) -> None:
    """Load all rewards and judges and show them their prompts. Raises ParetuneError for the first misfit."""
    rewards = {n: load_reward(r.reward, name=n, **r.options) for n, r in config.rewards.items()}
    for name, own in config.rewards.items():
        for file in (own.prompts, own.eval_prompts):
            _tell(f"reward {name} cannot score", file, functools.partial(_first, rewards[name]))
    if "morl_dr" in config.methods:
        _check_crosswise(config, rewards)
    _check_objective(config, [own.prompts for own in config.rewards.values()])
    known = set(rewards)
    for own in config.rewards.values():
        if own.judge and config.evaluate.judges:
            judge = load_reward(own.judge)
            _tell(f"judge {judge.name} cannot score", own.eval_prompts, functools.partial(_first, judge))
            known.add(judge.name)
    for spec in config.evaluate.untargeted:
        reward = load_reward(spec)
        if reward.name in known:
            raise ParetuneError(
                f"evaluate.untargeted: {reward.name} is a reward or a judge of this run already"
            )
        known.add(reward.name)
        for file in dict.fromkeys(own.eval_prompts for own in config.rewards.values()):
            told = f"untargeted reward {reward.name} cannot score"
            _tell(told, file, functools.partial(_first_that_applies, reward))


def check_unloaded(config: RunConfig, missing: Sequence[str], trusted: bool = True) -> None:
    """What `check_prompts` finds, as far as files are there and classes tell without an object of theirs.

    missing: the files that are not there. trusted: whether code of files and modules is run. An object
    is made of a user's own class where that has a `check`.
    """
    for file in dict.fromkeys(f for own in config.rewards.values() for f in (own.prompts, own.eval_prompts)):
        if _is_near(file, missing):
            load_prompts(file)  # whoever is to read it: a file that holds no prompts is told here
    for name, own in config.rewards.items():
        scorers = [(f"reward {name}", own.reward, [own.prompts, own.eval_prompts], own.options)]
        if own.judge and config.evaluate.judges:
            scorers.append((f"the judge of {name}", own.judge, [own.eval_prompts], {}))
        for who, spec, files, options in scorers:
            skipped = str(reward_file(spec)) in missing or (is_own(spec) and not trusted)
            check = None if skipped else _unloaded(spec, options)
            if check is None:
                continue
            ask = functools.partial(first_refused, check)
            for file in files:
                if _is_near(file, missing):
                    _tell(f"{who} cannot score", file, ask)
    for spec in config.evaluate.untargeted:
        if str(reward_file(spec)) not in missing and (trusted or not is_own(spec)):
            check_spec(spec)
    files = [own.prompts for own in config.rewards.values()]
    _check_objective(config, [file for file in files if _is_near(file, missing)])


def _check_crosswise(config: RunConfig, rewards: Mapping[str, Reward]) -> None:
    """morl_dr scores every prompt with every reward that applies to it."""
    for name, reward in rewards.items():
        for other, own in config.rewards.items():
            if other != name:
                told = f"reward {name}, which morl_dr asks too, cannot score"
                _tell(told, own.prompts, functools.partial(_first_that_applies, reward))


def _check_objective(config: RunConfig, files: Sequence[str]) -> None:
    check = objective_check(config.objective.name)
    if check is None:
        return
    for file in files:
        _tell("training cannot take", file, functools.partial(first_refused, check))


def _unloaded(spec: str, options: dict[str, Any]) -> Check | None:
    """A reward's check, if it has one that can be asked without loading a model."""
    if is_own(spec):
        return getattr(load_reward(spec, **options), "check", None) if check_spec(spec) else None
    target = find_reward(spec)
    kept = inspect.getattr_static(target, "check", None)
    return target.check if isinstance(kept, (staticmethod, classmethod)) else None


def _tell(told: str, file: str, ask: Callable[[Sequence[Prompt]], Refused]) -> None:
    """Raise ParetuneError with file and line for a prompt that `ask` refuses."""
    prompts = load_prompts(file)
    found = ask(prompts)
    if found is None:
        return
    number, why = found
    if number is None:
        raise ParetuneError(f"{file}: {told} these prompts: {why}")
    text = prompts[number].text
    shown = text if len(text) <= 80 else f"{text[:77]}..."
    raise ParetuneError(f"{_where(file, number)}: {told} {shown!r}: {why}")


def _where(file: str, number: int) -> str:
    if file.startswith(PREFIX):
        return f"{file}, row {number}"
    # In other kinds of files a prompt is not a line.
    each = "line" if Path(file).suffix in ("", ".txt", ".jsonl") else "prompt"
    return f"{file}, {each} {number + 1}"


def _first(reward: Reward, prompts: Sequence[Prompt]) -> Refused:
    """The first prompt that a reward cannot score."""
    for number, prompt in enumerate(prompts):
        if (why := refusal(reward, prompt)) is not None:
            return number, why
    check = getattr(reward, "check", None)
    return None if check is None else first_refused(check, prompts)


def _first_that_applies(reward: Reward, prompts: Sequence[Prompt]) -> Refused:
    """The first prompt that a reward says it can score, and cannot."""
    for number, prompt in enumerate(prompts):
        if applies_to(reward, prompt) and (why := refusal(reward, prompt)) is not None:
            return number, why
    return None


def _is_near(file: str, missing: Sequence[str]) -> bool:
    """Whether prompts can be read without asking the hub."""
    place = file.removeprefix(PREFIX).partition("@")[0]
    return str(prompt_file(file)) not in missing and (not file.startswith(PREFIX) or Path(place).exists())
