"""The base class of all objectives: what an objective declares before any model is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict

from ...config import RunConfig
from ...types import ParetuneError, Prompt


class Options(BaseModel):
    """The keys of `objective.options`: one field for each, with its range, its default and a description."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def of_reward(self, reward: str) -> Self:
        """The options for the expert of a reward: the same, except where records have a score for each."""
        return self


class SameAnswers(ParetuneError):
    """A record whose better and worse answers are the same text: nothing can be learned from it."""


class Objective:
    """An objective. The class answers questions before training; a trainer may make an instance of it.

    options_kind: the class of its options. trainers: kind of samples -> "package.module:Class", the trainer
    that uses the objective. not_read: section of the recipe -> the keys that the trainer does not use; a
    recipe that sets one is refused. one_reward: whether it can only train an expert of a single reward.
    draws: whether it draws samples; otherwise it trains on the pairs of answers in the prompts' records.
    whole_logits: whether its trainer holds the scores of all words for all tokens of a micro-batch at once;
    others compute them tile by tile. given_answers: how many answers of a given record are read
    with gradients, for the estimate; a list counts as four, for its records are not opened.
    overlaps: whether samples can be scored while more of the epoch are drawn (`executor.overlap`).
    """

    options_kind: ClassVar[type[Options]] = Options
    trainers: ClassVar[Mapping[str, str]] = {}
    not_read: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    one_reward: ClassVar[bool] = False
    draws: ClassVar[bool] = True
    whole_logits: ClassVar[bool] = False
    given_answers: ClassVar[int] = 2
    overlaps: ClassVar[bool] = False

    @classmethod
    def check(cls, config: RunConfig, options: Any) -> None:
        """Raise ParetuneError if the options do not fit the rest of the recipe."""

    @classmethod
    def check_expert(cls, name: str, config: RunConfig, reward: str, options: Any) -> None:
        """Raise ParetuneError if it cannot train the expert of a reward: by default from no file of pairs.

        name: the objective's, for the message.
        """
        if config.rewards[reward].pairs is not None:
            raise ParetuneError(
                f"rewards.{reward}.pairs: objective {name} draws its samples; give the reward a preference "
                "objective, such as objective: diffusion_dpo"
            )

    @classmethod
    def check_prompts(cls, name: str, prompts: Sequence[Prompt]) -> None:
        """Raise ParetuneError for a prompt whose record lacks something that training needs.

        name: the objective's, for the message.
        """

    @classmethod
    def check_records(cls, name: str, prompts: Sequence[Prompt], options: Any) -> None:
        """`check_prompts` with the recipe's options, on which it may depend what is needed."""
        cls.check_prompts(name, prompts)

    @classmethod
    def told_of(cls, name: str, prompts: Sequence[Prompt], options: Any) -> str:
        """What a user should know of how it reads a file of prompts, in a line; "" for nothing."""
        return ""

    @classmethod
    def trained_points(cls, config: RunConfig, options: Any) -> float:
        """At how many noise levels or steps a drawn sample is trained on average; `estimate` counts them."""
        return 1.0

    @classmethod
    def anchored(cls, options: Any) -> bool:
        """Whether its loss looks at the anchor even without a KL term."""
        return False

    @classmethod
    def needs_whole_batches(cls, options: Any) -> bool:
        """Whether the loss compares the samples of a micro-batch, so that its size changes the result."""
        return False

    @classmethod
    def divisible(cls, options: Any) -> bool:
        """Whether several processes can train an expert together (see `training.together.crew`)."""
        return False

    @classmethod
    def follows_course(cls, options: Any) -> bool:
        """Whether an epoch depends on the share of the expert's epochs that is done, not on their number."""
        return False

    @classmethod
    def shardable(cls, options: Any) -> bool:
        """Whether several processes can share the base in pieces: all then call the model equally often."""
        return True

    @classmethod
    def takes_weights(cls) -> bool:
        """Whether it can train a policy that is given drawn weights of the rewards (method `conditioned`)."""
        return False

    @classmethod
    def describe(cls, options: Any) -> str:
        """The options that `paretune plan` shows after the name; "" for none."""
        return ""
