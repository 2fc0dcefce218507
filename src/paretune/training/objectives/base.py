"""What an objective says of itself before any model is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from ...config import RunConfig
from ...types import Prompt


class Options(BaseModel):
    """The keys of `objective.options`: a field each, with its range, its default and a line on it."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Objective:
    """An objective. Its class is asked before training; a trainer makes the object, or reads the class.

    trainers: what a sample is -> the "package.module:Class" that trains by it.
    not_read: sections of the recipe -> their keys that its trainer has nothing for, refused where they are
    set. one_reward: whether it is for experts of a single reward only. draws: whether it samples; otherwise
    it trains on the pairs of answers in the prompts' records. whole_logits: whether its trainer holds the
    scores of all words for all tokens of a micro-batch at once; others fold them tile by tile.
    """

    options_kind: ClassVar[type[Options]] = Options
    trainers: ClassVar[Mapping[str, str]] = {}
    not_read: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    one_reward: ClassVar[bool] = False
    draws: ClassVar[bool] = True
    whole_logits: ClassVar[bool] = False

    @classmethod
    def check(cls, config: RunConfig, options: Any) -> None:
        """Raise ParetuneError where the options do not go with the rest of the recipe."""

    @classmethod
    def check_prompts(cls, name: str, prompts: Sequence[Prompt]) -> None:
        """Raise ParetuneError for a prompt whose record lacks what training needs."""

    @classmethod
    def trained_points(cls, config: RunConfig, options: Any) -> float:
        """How many noise levels or steps a drawn sample is trained at, on average: what `estimate` counts."""
        return 1.0

    @classmethod
    def needs_whole_batches(cls, options: Any) -> bool:
        """Whether the loss compares the samples of a micro-batch, so that its size changes the result."""
        return False

    @classmethod
    def describe(cls, options: Any) -> str:
        """The options that `paretune plan` shows behind the name; "" for none."""
        return ""
