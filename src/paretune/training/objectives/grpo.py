"""GRPO of language models with TRL: answers are drawn in groups and scored by the recipe's rewards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from ...config import RunConfig
from ...limits import PositiveReal
from ...types import Prompt
from .trl import Batches, TrlObjective, TrlOptions


class GRPOOptions(TrlOptions):
    """Options of `grpo`; all arguments of TRL's GRPOConfig may be given as well."""

    clip_range: PositiveReal = Field(default=1e-4, description="clip of the ratio, TRL's epsilon")


class GRPO(TrlObjective):
    """See the module."""

    options_kind = GRPOOptions
    place = "trl:GRPOTrainer:GRPOConfig"
    draws = True

    @classmethod
    def fixed(cls, config: RunConfig, kl: float, batches: Batches) -> dict[str, Any]:
        """See `TrlObjective`. All groups of an epoch are drawn at once."""
        return {
            "steps_per_generation": batches.accumulate * batches.updates, "beta": kl, "num_iterations": 1,
            "shuffle_dataset": False, "num_generations": config.train.group_size,
        }  # fmt: skip

    @classmethod
    def defaults(cls, config: RunConfig, options: Any, kl: float) -> dict[str, Any]:
        """See `TrlObjective`."""
        whole = config.objective.advantage_std == "global"
        return {"epsilon": options.clip_range, "scale_rewards": "batch" if whole else "group"}

    @classmethod
    def rows(
        cls, name: str, prompts: Sequence[Prompt], texts: Sequence[str], index: Sequence[int],
        chats: bool = False,
    ) -> list[dict[str, Any]]:
        """The prompts, each with its number for the rewards."""
        return [{"prompt": texts[i], "index": i} for i in index]
