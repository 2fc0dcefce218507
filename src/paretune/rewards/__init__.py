"""Rewards: what a picture is worth for a prompt. `table` names them, `base` finds and calls them; the
rest is one file a family. A reward sees pictures and prompts, never a policy."""

from .base import (
    REWARDS,
    FunctionReward,
    RewardError,
    load_reward,
    oriented,
    score_all,
    score_samples,
)

__all__ = [
    "REWARDS",
    "FunctionReward",
    "RewardError",
    "load_reward",
    "oriented",
    "score_all",
    "score_samples",
]
