"""Check, before anything is trained, that every prompt can be used by all that will train on it or score it.

`check_prompts` is called when a run begins: it loads the rewards and asks them. `check_unloaded` is for
`paretune plan`: it asks only what can be answered without loading a network or a dataset of the hub.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..config import RunConfig
from ..data.prompts import PREFIX, load_prompts, prompt_file
from ..data.remote import is_remote
from ..data.sets import PREFIX as SET
from ..inputs.pictures import first_unreadable, picture_of
from ..models.detect import family_of
from ..models.family import misfit
from ..planning.notices import uneven_notices
from ..rewards.base import (
    REWARDS,
    check_head,
    check_spec,
    find_reward,
    is_own,
    load_reward,
    reward_file,
    reward_of,
)
from ..rewards.checks import Check, applies_to, first_refused, refusal
from ..rewards.trust import check_options, is_code
from ..training.judging import check_judging
from ..training.objectives.base import SameAnswers
from ..training.objectives.settings import read_options
from ..training.objectives.table import find_objective
from ..types import ParetuneError, Prompt, Reward
from .medium_checks import check_media

Refused = tuple[int | None, str] | None  # the number of the refused prompt, from 0, and the reason


def check_prompts(config: RunConfig) -> list[str]:
    """Load all rewards and judges, and raise ParetuneError for the first prompt that one cannot score.

    Every input picture is read, too. Returns what a user should know of rewards and records, in lines.
    """
    check_media(config)
    check_judging(config)
    rewards = {n: reward_of(r, n) for n, r in config.rewards.items()}
    files = [file for r in config.rewards.values() for file in (r.prompts, r.eval_prompts)]
    check_pictures(config, files)
    for file in dict.fromkeys(files):
        refuse("the model cannot take", file, first_unreadable)
    for name, reward_config in config.rewards.items():
        for file in (reward_config.prompts, reward_config.eval_prompts):
            refuse(f"reward {name} cannot score", file, functools.partial(_first, rewards[name]))
    _check_crosswise(config, rewards)
    told = _check_objective(config, [reward_config.prompts for reward_config in config.rewards.values()])
    known = set(rewards)
    for reward_config in config.rewards.values():
        if reward_config.judge and config.evaluate.judges:
            judge = load_reward(reward_config.judge)
            complaint = f"judge {judge.name} cannot score"
            refuse(complaint, reward_config.eval_prompts, functools.partial(_first, judge))
            known.add(judge.name)
    for spec in config.evaluate.untargeted:
        reward = load_reward(spec)
        _name_untargeted(reward.name, known)
        for file in dict.fromkeys(reward_config.eval_prompts for reward_config in config.rewards.values()):
            complaint = f"untargeted reward {reward.name} cannot score"
            refuse(complaint, file, functools.partial(_first_that_applies, reward))
    return told + uneven_notices(config, {name: reward.range for name, reward in rewards.items()})


def check_unloaded(config: RunConfig, missing: Sequence[str], trusted: bool = True) -> None:
    """What `check_prompts` checks, as far as files exist and a class can answer without being instantiated.

    A user's class that has a `check` is instantiated.

    Args:
        config: the recipe.
        missing: the files that do not exist.
        trusted: whether code in files and modules may be run.

    Raises:
        ParetuneError: for the first prompt that is refused.
    """
    check_media(config)
    check_judging(config)
    both = [file for r in config.rewards.values() for file in (r.prompts, r.eval_prompts)]
    for file in dict.fromkeys(both):
        if _is_near(file, missing):
            load_prompts(file)  # a file that holds no prompts is refused, whatever its reward checks
    check_pictures(config, [file for file in both if _is_near(file, missing)])
    for name, reward_config in config.rewards.items():
        if reward_config.head is not None:
            check_head(reward_config.reward, reward_config.head, f"rewards.{name}.head: ")
        both = [reward_config.prompts, reward_config.eval_prompts]
        scorers = [(f"reward {name}", reward_config.reward, both, reward_config.options)]
        if reward_config.judge and config.evaluate.judges:
            scorers.append((f"the judge of {name}", reward_config.judge, [reward_config.eval_prompts], {}))
        for who, spec, files, options in scorers:
            skipped = str(reward_file(spec)) in missing or (is_code(spec) and not trusted)
            check = None if skipped else _unloaded(spec, options)
            if check is None:
                continue
            ask = functools.partial(first_refused, check)
            for file in files:
                if _is_near(file, missing):
                    refuse(f"{who} cannot score", file, ask)
    judges = [r.judge for r in config.rewards.values() if r.judge and config.evaluate.judges]
    known = set(config.rewards) | {name for spec in judges if (name := _registered_name(spec))}
    for spec in config.evaluate.untargeted:
        if str(reward_file(spec)) not in missing and (trusted or not is_code(spec)):
            check_spec(spec)
        if name := _registered_name(spec):
            _name_untargeted(name, known)
    files = [reward_config.prompts for reward_config in config.rewards.values()]
    _check_objective(config, [file for file in files if _is_near(file, missing)])


def _registered_name(spec: str) -> str | None:
    """The name of one of paretune's rewards; None for others, and for one that is named as it is built."""
    name = getattr(find_reward(spec), "name", None) if spec in REWARDS else None
    return name if isinstance(name, str) else None


def _name_untargeted(name: str, known: set[str]) -> None:
    """Add the name of an untargeted reward to those of the run. Raises ParetuneError where it is taken."""
    if name in known:
        raise ParetuneError(f"evaluate.untargeted: {name} is a reward or a judge of this run already")
    known.add(name)


def check_pictures(config: RunConfig, files: Sequence[str]) -> None:
    """Raise ParetuneError for the first prompt that lacks an input picture, or has one that nothing sees."""
    family = family_of(config.model.path)

    def ask(prompts: Sequence[Prompt]) -> Refused:
        for number, prompt in enumerate(prompts):
            if wrong := misfit(family, picture_of(prompt.text)):
                return number, f"{family.name} {wrong}"
        return None

    for file in dict.fromkeys(files):
        refuse("the model cannot take", file, ask)


def _check_crosswise(config: RunConfig, rewards: Mapping[str, Reward]) -> None:
    """Check every prompt with every reward that applies to it, where one policy or map.lean scores it so."""
    joint = next((name for name in ("morl_dr", "conditioned") if name in config.methods), None)
    for name, reward in rewards.items():
        for other, reward_config in config.rewards.items():
            leans = "mapreduce" in config.methods and config.lean(other) > 0
            asking = joint or ("map.lean" if leans else None)
            if other != name and asking:
                complaint = f"reward {name}, which {asking} asks too, cannot score"
                refuse(complaint, reward_config.prompts, functools.partial(_first_that_applies, reward))


def _check_objective(config: RunConfig, files: Sequence[str]) -> list[str]:
    """Check the records that the objective trains on; returns what a user should know of them, in lines."""
    name, kind = config.objective.name, find_objective(config.objective.name)
    if kind.draws:
        return []

    def check(prompts: Sequence[Prompt], options: Any, tolerated: tuple[type[Exception], ...]) -> None:
        with suppress(*tolerated):
            kind.check_records(name, prompts, options)

    told: list[str] = []
    for file, reward in sets_of(config):
        if file not in files:
            continue
        options = read_options(config.objective, reward)
        # A user can leave a record out of a file. In a data set of the hub a few teach nothing, and no harm.
        tolerated = (SameAnswers,) if file.startswith(PREFIX) else ()
        asked = functools.partial(check, options=options, tolerated=tolerated)
        refuse("training cannot take", file, functools.partial(first_refused, asked))
        if line := kind.told_of(name, load_prompts(file), options):
            told.append(f"{file}: {line}")
    return list(dict.fromkeys(told))


def teaches(config: RunConfig, reward: str, prompt: Prompt) -> bool:
    """Whether a reward's expert learns from a record: not from one with the same answer on both sides."""
    name, kind = config.objective.name, find_objective(config.objective.name)
    try:
        if not kind.draws:
            kind.check_records(name, [prompt], read_options(config.objective, reward))
    except ParetuneError as error:  # another fault is told with its place, by the checks of the run
        return not isinstance(error, SameAnswers)
    return True


def sets_of(config: RunConfig) -> list[tuple[str, str]]:
    """Each file of prompts with the rewards as whose own an objective reads it.

    Where an objective reads the same of a file whatever the reward, the file stands there once.
    """
    scored = "score" in find_objective(config.objective.name).options_kind.model_fields
    found = {(own.prompts, name if scored else ""): name for name, own in config.rewards.items()}
    return [(file, name) for (file, _), name in found.items()]


def _unloaded(spec: str, options: dict[str, Any]) -> Check | None:
    """The check of a reward, if it has one that can be called without loading a model."""
    if is_own(spec):
        return getattr(load_reward(spec, **options), "check", None) if check_spec(spec) else None
    target = find_reward(spec)
    check_options(target, spec, options)
    kept = inspect.getattr_static(target, "check", None)
    return target.check if isinstance(kept, (staticmethod, classmethod)) else None


def refuse(complaint: str, file: str, ask: Callable[[Sequence[Prompt]], Refused]) -> None:
    """Raise ParetuneError with file and line for the first prompt of a file that `ask` refuses.

    complaint: the words of the message that stand before the prompt.
    """
    prompts = load_prompts(file)
    found = ask(prompts)
    if found is None:
        return
    number, why = found
    if number is None:
        raise ParetuneError(f"{file}: {complaint} these prompts: {why}")
    text = prompts[number].text
    shown = text if len(text) <= 80 else f"{text[:77]}..."
    raise ParetuneError(f"{_where(file, number)}: {complaint} {shown!r}: {why}")


def _where(file: str, number: int) -> str:
    if file.startswith(PREFIX):
        return f"{file}, row {number}"
    if file.startswith(SET):
        return f"{file}, prompt {number + 1}"
    # In the other kinds of files a prompt need not be one line.
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
    """The first prompt that a reward applies to and nevertheless cannot score."""
    for number, prompt in enumerate(prompts):
        if applies_to(reward, prompt) and (why := refusal(reward, prompt)) is not None:
            return number, why
    return None


def _is_near(file: str, missing: Sequence[str]) -> bool:
    """Whether prompts can be read without access to the hub."""
    if file.startswith(PREFIX):
        return Path(file.removeprefix(PREFIX).partition("@")[0]).exists()
    return not is_remote(file) and str(prompt_file(file)) not in missing
