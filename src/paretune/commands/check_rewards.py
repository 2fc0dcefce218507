"""`paretune check-rewards`: the reward card of a recipe on its base model, in a minute, before training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..config import RunConfig
from ..environment import choose_device
from ..executors.base import Report
from ..files import write_json
from ..stages.claim import check
from ..stages.reward_card import reward_card


def check_rewards(
    config: RunConfig, report: Report, prompts: int = 16, samples: int = 4, out: Path | None = None
) -> dict[str, Any]:
    """Check a recipe, and make its reward card.

    Args:
        config: the recipe.
        report: called with the progress.
        prompts: held-out prompts of each reward.
        samples: of each prompt; 2 or more, to see differences within a prompt.
        out: a new or older file for the card, as JSON.
    """
    check(config)
    made = reward_card(config, choose_device(config.executor.device), report, prompts, samples)
    if out is not None:
        write_json(out, made)
    return made
