"""What a recipe is checked for before training, as far as it needs no file of prompts or rewards."""

from __future__ import annotations

from ..config import RunConfig
from ..ops.distilling import DISTIL
from ..types import ParetuneError
from .together.checks import check_together
from .trainers import check_objective
from .weighted import check_weighted
from .whole_checks import check_whole


def check_training(config: RunConfig) -> None:
    """Raise ParetuneError if the recipe's objective, methods or executor cannot train its model."""
    check_objective(config)
    check_whole(config)
    check_together(config)
    check_weighted(config)
    if config.reduce.method == "search" and config.reduce.momentum and "mapreduce" in config.methods:
        raise ParetuneError("reduce.momentum: search measures averages without it: leave it out")
    uneven = len({own.weight for own in config.rewards.values()}) > 1
    if config.reduce.method == DISTIL and "mapreduce" in config.methods and uneven:
        raise ParetuneError(
            f"reduce.method: {DISTIL} asks every expert equally often, whatever its weight; leave the "
            "weights of the rewards out"
        )
