"""The part of training a reward token that differs from one kind of model to another.

The loop (`tokens.TokenTrainer`) asks a student to draw from its expert, for the loss of a batch of that, and
for samples with the token to validate; it never looks at what a sample is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ...config import RunConfig, TokensConfig
from ...models.loading import open_policy
from ...ops.lowrank import LowRank
from ...planning.plan import TokenTask, derive_seed
from ...reward_tokens.files import Token, write_token
from ...reward_tokens.pipelines import Scaled
from ...types import Prompt, Samples
from .teacher import Teacher

# The loss of some of a batch's samples, by their numbers in it.
Losses = Callable[[torch.Tensor], torch.Tensor]


class Student:
    """The base with one token in training. Everything but the token's vectors is frozen."""

    def __init__(
        self, config: RunConfig, task: TokenTask, expert: Mapping[str, LowRank], device: str
    ) -> None:
        assert config.tokens is not None
        self.config, self.task = config, task
        self.settings: TokensConfig = config.tokens
        self.policy: Any = open_policy(config.model, device)
        self.policy.autocast = config.train.autocast
        self.teacher = Teacher(self.policy, expert)
        generator = torch.Generator().manual_seed(derive_seed(task.seed, "init"))
        init = self.settings.options.init
        self.token: Token = self.policy.new_token(task.reward, self.settings.vectors, init, generator)

    @property
    def tokens(self) -> list[Scaled]:
        """What follows every prompt."""
        return [Scaled(self.token)]

    def units(self) -> dict[str, float]:
        """What a step's length is measured in, for each of the token's vectors."""
        return self.policy.row_scales()

    def learn_from(
        self, prompts: Sequence[Prompt], folder: Path, inputs: str, should_stop: Callable[[], bool]
    ) -> int:
        """Draw the teacher's samples of the prompts in turn, or read them from `folder`; returns how many.

        inputs: a digest of the teacher. Raises Stopped when asked to stop.
        """
        raise NotImplementedError

    def batch(self, chosen: torch.Tensor, generator: torch.Generator) -> Losses:
        """One step's batch: the chosen samples, [B]. generator: the step's own, for what is drawn by lot.

        The loss of a part is the mean over its samples, so that parts add up to the batch.
        """
        raise NotImplementedError

    def draw(self, prompts: Sequence[Prompt], seed: int) -> Samples:
        """A sample of each prompt with the token; the same seed draws alike."""
        raise NotImplementedError

    def write(self, folder: Path, token: Token) -> list[str]:
        """Write a token's files for other tools; returns their names."""
        return write_token(folder, token)
