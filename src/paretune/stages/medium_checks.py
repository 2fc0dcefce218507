"""Refuse, before anything is loaded, a reward that cannot score what the recipe's model draws."""

from __future__ import annotations

from ..config import RunConfig
from ..models.detect import family_of
from ..rewards.needs import medium_of_reward
from ..rewards.table import REWARDS
from ..types import ParetuneError


def check_media(config: RunConfig) -> None:
    """Raise ParetuneError for the first reward, judge or untargeted reward of another kind of samples."""
    drawn = family_of(config.model.path).medium
    named = [(f"rewards.{name}", own.reward) for name, own in config.rewards.items()]
    if config.evaluate.judges:
        named += [(f"rewards.{name}.judge", own.judge) for name, own in config.rewards.items() if own.judge]
    named += [("evaluate.untargeted", spec) for spec in config.evaluate.untargeted]
    for where, spec in named:
        scored = medium_of_reward(spec)
        if scored is not None and scored != drawn:
            fitting = [name for name in REWARDS if medium_of_reward(name) == drawn and "." not in name]
            raise ParetuneError(
                f"{where}: {spec} scores {scored}, and {config.model.path} draws {drawn}; rewards of "
                f"{drawn}: {', '.join(fitting)}"
            )
