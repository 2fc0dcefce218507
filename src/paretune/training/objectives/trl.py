"""Objectives of language models: a trainer of TRL, its arguments, and the rows of its data set.

`training.language` imports TRL when training begins; this module does not.
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
# Options of TRL with which the number of processes would change what is drawn, or what is compared.
OF_ONE_PROCESS = (
    "use_vllm", "use_transformers_continuous_batching", "top_entropy_quantile", "entropy_coef",
    "use_adaptive_entropy", "precompute_ref_log_probs",
)  # fmt: skip


class TrlOptions(Options):
    """TRL's settings may be given by their names too; they are checked when TRL is loaded."""

    model_config = ConfigDict(frozen=True, extra="allow")


@dataclass(frozen=True)
class Batches:
    """How an epoch is divided.

    micro: samples in a forward pass. accumulate: forward passes in an update. updates: updates in an epoch.
    """

    micro: int
    accumulate: int
    updates: int


class TrlObjective(Objective):
    """An objective that TRL trains.

    place: "module:Trainer:Config" of TRL. loss_arguments: arguments of the trainer that select this
    objective's loss. draws: whether answers are drawn and scored by rewards; otherwise the rows hold them.
    rows_a_prompt: how many rows of the data set one prompt makes. whole_batches: see
    `Objective.needs_whole_batches`.
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
        """True for losses that need them, and for every recipe that gives a `loss_type`."""
        return cls.whole_batches or "loss_type" in (options.model_extra or {})

    @classmethod
    def divisible(cls, options: Any) -> bool:
        """See `Objective.divisible`: where a micro-batch of another size changes nothing but rounding."""
        given = options.model_extra or {}
        alone = any(given.get(key) not in (None, False, "auto") for key in OF_ONE_PROCESS)
        return not alone and not cls.needs_whole_batches(options)

    @classmethod
    def fixed(cls, config: RunConfig, kl: float, batches: Batches) -> dict[str, Any]:
        """TRL's arguments that other keys of the recipe determine; `objective.options` may not set them."""
        raise NotImplementedError

    @classmethod
    def defaults(cls, config: RunConfig, options: Any, kl: float) -> dict[str, Any]:
        """TRL's arguments that `objective.options` may replace."""
        raise NotImplementedError

    @classmethod
    def extra(cls, options: Any) -> dict[str, Any]:
        """Arguments of the trainer itself, beside those of its configuration."""
        return {}

    @classmethod
    def rows(
        cls, name: str, prompts: Sequence[Prompt], texts: Sequence[str], index: Sequence[int],
        chats: bool = False,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """The data set's rows for the prompts at `index`, in its order.

        Args:
            name: the name of the objective, for a message.
            prompts: all prompts of the expert, with their records.
            texts: the prompts as the model reads them.
            index: the prompts of the whole training, epoch by epoch.
            chats: whether the prompts have a chat template. Then rows are conversations, and TRL ends their
                answers as the template does, not with the tokenizer's end token.
        """
        raise NotImplementedError
