"""What an objective of language models is: a trainer of TRL, what makes it this objective, and its rows.

TRL is imported by `training.language` when training begins, not here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import ConfigDict

from ...config import RunConfig
from ...types import Prompt
from .base import Objective, Options

TRAINER = "paretune.training.language.trainer:LanguageTrainer"


class TrlOptions(Options):
    """TRL's own settings may be given by their names; they are checked when TRL is loaded."""

    model_config = ConfigDict(frozen=True, extra="allow")


@dataclass(frozen=True)
class Batches:
    """How an epoch is cut. micro: a forward pass; accumulate: of them an update; updates: an epoch."""

    micro: int
    accumulate: int
    updates: int


class TrlObjective(Objective):
    """place: module:Trainer:Config of TRL. own: arguments that make the trainer this objective.

    draws: whether answers are drawn and scored by rewards; else the rows hold them. rows_a_prompt: how many
    rows of the data set a prompt is. whole_batches: see `Objective.needs_whole_batches`.
    """

    options_kind = TrlOptions
    trainers: ClassVar[Mapping[str, str]] = {"texts": TRAINER}
    not_read: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "train": ("keep",), "objective": ("shared_noise", "advantage_clip", "anchor"),
    }  # fmt: skip
    place: ClassVar[str]
    loss_arguments: ClassVar[Mapping[str, Any]] = {}
    draws: ClassVar[bool] = False
    rows_a_prompt: ClassVar[int] = 1
    whole_batches: ClassVar[bool] = False

    @classmethod
    def needs_whole_batches(cls, options: Any) -> bool:
        """Of the losses that do, and wherever the recipe names a loss itself."""
        return cls.whole_batches or "loss_type" in (options.model_extra or {})

    @classmethod
    def fixed(cls, config: RunConfig, kl: float, batches: Batches) -> dict[str, Any]:
        """TRL's arguments that the recipe's own keys say; `objective.options` may not."""
        raise NotImplementedError

    @classmethod
    def defaults(cls, config: RunConfig, options: Any, kl: float) -> dict[str, Any]:
        """TRL's arguments that `objective.options` may replace."""
        raise NotImplementedError

    @classmethod
    def rows(
        cls, name: str, prompts: Sequence[Prompt], texts: Sequence[str], index: Sequence[int],
        chats: bool = False,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """The data set's rows for the prompts at `index`, in its order.

        Args:
            name: the objective's, for a message.
            prompts: all prompts of the expert, with their records.
            texts: the prompts as the model reads them.
            index: those of the whole training, epoch by epoch.
            chats: whether the prompts have a chat template: then rows are conversations, whose answers TRL
                ends as the template does, and not with the tokenizer's end.
        """
        raise NotImplementedError
