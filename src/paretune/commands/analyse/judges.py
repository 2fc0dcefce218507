"""The judge of `paretune analyse safety`: a reward of the run, a registered one, or the user's own."""

from __future__ import annotations

import difflib

from ...config import RunConfig
from ...rewards.base import load_reward, reward_of
from ...rewards.table import REWARDS, added_reward
from ...rewards.trust import ASK, is_code
from ...types import ParetuneError, Reward


def open_judge(name: str, config: RunConfig | None, trusted: bool) -> Reward:
    """The reward that judges answers.

    Args:
        name: of a reward of the run, with its options and its head; or what `load_reward` takes.
        config: the recipe of the run; None for a bare model.
        trusted: whether a reward of the run that is somebody's code may be run. Code that the user names
            on the command line is the user's own.

    Raises:
        ParetuneError: for code that is not trusted, an unknown name, or a reward that cannot be made.
    """
    owned = config.rewards if config is not None else {}
    if name in owned:
        spec = owned[name].reward
        if is_code(spec) and not trusted:
            raise ParetuneError(
                f"--judge {name}: this reward of the run is {' '.join(spec.split())[:120]}; the code of a "
                f"run's folder may be anybody's, and {ASK} runs it"
            )
        return reward_of(owned[name], name)
    if owned and not (is_code(name) or name in REWARDS or added_reward(name) is not None):
        near = difflib.get_close_matches(name, owned, n=1)
        hint = f"did you mean {near[0]}? Or" if near else f"the run has {', '.join(owned)}. Or"
        raise ParetuneError(
            f"--judge: there is no reward {name}; {hint} give phrases, a registered reward, module:Name or "
            "file.py:Name"
        )
    return load_reward(name, name=name)
