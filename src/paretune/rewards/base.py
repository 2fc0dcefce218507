"""Find a reward by its name, and score samples so that every failure is one clear line.

Shapes: B samples and B prompts; pictures are float32 [B, 3, H, W] and clips [B, T, 3, H, W] in [0, 1];
scores are float32 [B].
"""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from paretune.config import RewardConfig
from paretune.types import ParetuneError, Prompt, Reward, Samples

from .apart import RewardApart, find_apart
from .checks import applies_to
from .deadline import Late, within
from .errors import LATE, RewardError, RewardTimeout, one_line
from .errors import failure as _line
from .heads import HeadReward, Scorer, Values, checked_heads, declared_heads, shared_scorer, unknown_head
from .importing import Modules, neighbours, resolve
from .printing import prints_to_stderr
from .scores import checked_scores, own_prompts, own_samples
from .table import REWARDS, added_reward, load_added_reward, place_of, unknown_reward
from .trust import check_kind
from .wrapping import FunctionReward, build

__all__ = [
    "REWARDS",
    "FunctionReward",
    "RewardError",
    "RewardTimeout",
    "applies_to",
    "build_reward",
    "check_head",
    "check_spec",
    "find_reward",
    "is_own",
    "load_reward",
    "one_line",
    "oriented",
    "registered_reward",
    "reward_file",
    "reward_of",
    "score_all",
    "score_heads",
    "score_samples",
]

# ---------------------------------------------------------------- finding one


def load_reward(spec: str, name: str | None = None, **options: Any) -> Reward:
    """Build the reward that `spec` names.

    spec: a name of `REWARDS` or of another package (`table`), "package.module:Name", or
    "path/to/file.py:Name". Name is a class with `score` (constructed with the options), an object that has
    it, or a function (`FunctionReward`).
    name: what the run calls it, where that differs from its own name.
    A reward that is not paretune's own is loaded and called in a process of its own (`apart.RewardApart`).
    Raises ParetuneError for an unknown name, a missing file or module, unfit options, or what is no reward.
    """
    return RewardApart(spec, name, options) if is_own(spec) else registered_reward(spec, name, options)


def registered_reward(spec: str, name: str | None, options: dict[str, Any]) -> Reward:
    """A reward of `REWARDS`, in this process; of one with several heads that which the option `head` names.

    Without that option the usual one.
    """
    target = find_reward(spec)
    usual = getattr(target, "usual_head", None)
    if usual is None:
        return build_reward(spec, name, options)
    rest = {key: value for key, value in options.items() if key != "head"}
    head = options.get("head", usual)
    check_head(spec, head)
    return _head_reward(spec, rest, head, name or target.name)


def reward_of(own: RewardConfig, name: str) -> Reward:
    """The reward `name` of a recipe: what its section names, and of that the head that it names, if any.

    Rewards with a head share their scorer (`heads`). Raises ParetuneError as `load_reward` does, for a head
    that does not exist, and for a reward of several heads of which none is named and none is usual.
    """
    if own.head is None:
        reward = load_reward(own.reward, name=name, **own.options)
        if (heads := declared_heads(reward)) is not None:
            raise ParetuneError(
                f"rewards.{name}: {own.reward} gives several values; say which by rewards.{name}.head: one "
                f"of {', '.join(heads)}"
            )
        return reward
    if is_own(own.reward):
        return _head_reward(own.reward, own.options, own.head, name)
    check_head(own.reward, own.head, f"rewards.{name}.head: ")
    rest = {key: value for key, value in own.options.items() if key != "head"}
    return _head_reward(own.reward, rest, own.head, name)


def check_head(spec: str, head: Any, where: str = "") -> None:
    """Raise ParetuneError where a reward of paretune's own has no such head. Loads no model.

    where: begins the message. The heads of a reward of somebody's own are known once it is loaded.
    """
    if is_own(spec):
        return
    heads = declared_heads(find_reward(spec))
    if heads is None:
        raise ParetuneError(f"{where}{spec} gives one value and has no heads: leave the head out")
    if head not in heads:
        raise ParetuneError(f"{where}{spec} {unknown_head(head, heads)}")


def _head_reward(spec: str, options: dict[str, Any], head: str, name: str) -> HeadReward:
    def load() -> Scorer:
        if is_own(spec):
            apart = RewardApart(spec, None, options)
            return Scorer(apart, apart.scored_heads)
        inner = build_reward(spec, None, options)
        return Scorer(inner, lambda samples, prompts, seconds: score_heads(inner, samples, prompts, seconds))

    return HeadReward(shared_scorer(spec, options, load, keep=not is_own(spec)), head, name)


def is_own(spec: str) -> bool:
    """Whether `spec` names a reward of a user's own: of a module, a file, or another installed package."""
    return ":" in spec or added_reward(spec) is not None


def check_spec(spec: str) -> bool:
    """Raise ParetuneError where `find_reward` would; code of a user's own is imported in its own process.

    Returns whether what `spec` names has a method `check`.
    """
    if is_own(spec):
        return find_apart(spec)
    return hasattr(find_reward(spec), "check")


def build_reward(
    spec: str, name: str | None, options: dict[str, Any], kept: Modules | None = None
) -> Reward:
    """`load_reward`, in this process. kept: see `importing.neighbours`."""
    target, file = find_reward(spec, kept), reward_file(spec)
    with prints_to_stderr():
        if file is None:
            return build(target, spec, options, name)
        with neighbours(file.resolve().parent, kept):
            return build(target, spec, options, name)


def find_reward(spec: str, kept: Modules | None = None) -> Any:
    """The class or function that `spec` names, not built. Raises ParetuneError as `load_reward` does."""
    with prints_to_stderr():
        if ":" in spec or spec in REWARDS:
            target = resolve(place_of(spec), kept)
        elif point := added_reward(spec):
            target = load_added_reward(point)
        else:
            raise unknown_reward(spec)
        return check_kind(target, spec)


def reward_file(spec: str) -> Path | None:
    """The file of "file.py:Name", which may not exist; None for a reward of a module or of a known name."""
    place = place_of(spec).rpartition(":")[0]
    return Path(place) if place.endswith(".py") else None


# ---------------------------------------------------------------- scoring


def score_samples(
    reward: Reward,
    samples: Samples,
    prompts: Sequence[Prompt],
    batch_size: int = 64,
    timeout: float | None = 120.0,
) -> torch.Tensor:
    """Score B samples in batches; float32 [B] on the CPU, all finite, the reward's own sign.

    The reward gets copies: what it does to samples and prompts changes nothing for anybody else.
    timeout: seconds for one batch, None for no limit; the process of a user's own reward is killed when
    it takes longer, the call of another one is broken off. Raises RewardError, in one line with a prompt,
    when the reward raises, hangs, returns NaN or infinity, another number of values than samples, or
    something that is not numbers.
    """
    if len(samples) != len(prompts):
        raise ParetuneError(
            f"reward {reward.name!r}: {len(samples)} samples but {len(prompts)} prompts"
        )
    parts = []
    for start, end in _batches(reward, prompts, batch_size):
        chunk = prompts[start:end]
        part = samples[start:end]
        # What crosses to another process is a copy, and comes back checked.
        if isinstance(reward, RewardApart | HeadReward):
            parts.append(reward.scored(part, chunk, math.inf if timeout is None else timeout))
            continue
        with prints_to_stderr():
            value = _call(reward, own_samples(part), own_prompts(chunk), timeout)
            parts.append(checked_scores(reward, value, chunk))
    return torch.cat(parts) if parts else torch.zeros(0)


def score_heads(
    reward: Reward, samples: Samples, prompts: Sequence[Prompt], timeout: float | None
) -> Values:
    """Score one batch by a reward of several heads: head -> float32 [B]. Raises as `score_samples` does."""
    limit = None if timeout == math.inf else timeout
    with prints_to_stderr():
        value = _call(reward, own_samples(samples), own_prompts(prompts), limit)
        return checked_heads(reward, value, prompts)


def _batches(reward: Reward, prompts: Sequence[Prompt], size: int) -> Iterator[tuple[int, int]]:
    """Where each batch begins and ends.

    A reward with `groups` compares the samples of a prompt, so that its batches are longer where they would
    part samples of one prompt that follow each other.
    """
    start, whole = 0, getattr(reward, "groups", False) is True
    while start < len(prompts):
        end = min(start + size, len(prompts))
        while whole and end < len(prompts) and prompts[end].text == prompts[end - 1].text:
            end += 1
        yield start, end
        start = end


def score_all(
    rewards: Sequence[Reward],
    samples: Samples,
    prompts: Sequence[Prompt],
    batch_size: int = 64,
    timeout: float = 120.0,
) -> dict[str, torch.Tensor]:
    """Each distinct reward's scores, {name: float32 [B]}; one that comes twice is scored once."""
    by_name: dict[str, Reward] = {}
    for reward in rewards:
        if by_name.setdefault(reward.name, reward) is not reward:
            raise ParetuneError(f"two different rewards are called {reward.name!r}: rename one")
    return {
        name: score_samples(reward, samples, prompts, batch_size, timeout)
        for name, reward in by_name.items()
    }


def oriented(reward: Reward, values: torch.Tensor) -> torch.Tensor:
    """The values with the sign that makes greater better: flipped for a reward that is a cost."""
    return values if reward.higher_is_better else -values


def _call(
    reward: Reward, samples: Samples, prompts: Sequence[Prompt], timeout: float | None
) -> Any:
    """What a reward returns for one batch; whatever it raises is a RewardError."""
    try:
        with within(timeout), torch.enable_grad():
            return reward.score(samples, prompts)
    except Late as error:
        told = f"did not answer within {timeout:g} s"
        raise RewardTimeout(f"{_line(reward, told, prompts[0])}; {LATE}") from error
    except RewardError:  # of a reward that is elsewhere: it says by itself what failed
        raise
    except BaseException as error:
        # Ctrl-C is the user's, unless this process does not hear it: then the reward raised it.
        if isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
            raise
        raise RewardError(_line(reward, f"raised {one_line(error)}", prompts[0])) from error
