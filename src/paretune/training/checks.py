"""What a recipe is checked for before training, as far as it needs no file of prompts or rewards."""

from __future__ import annotations

from ..config import RunConfig
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
