"""The part of training a reward token that differs between kinds of models.

The loop (`trainer.TokenTrainer`) asks a student to draw samples from its expert, for the loss of a batch of
them, and for samples with the token, which are validated. The loop never looks at what a sample is.
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

# The numbers of some samples within a batch -> their loss.
Losses = Callable[[torch.Tensor], torch.Tensor]
# The same, and the advantage of each of these samples -> their loss.
Weighted = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Student:
    """The base model with one token in training. Everything except the token's vectors is frozen."""

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
        init = self.settings.options.words_of(task.reward)
        self.token: Token = self.policy.new_token(task.reward, self.settings.vectors, init, generator)

    @property
    def tokens(self) -> list[Scaled]:
        """The tokens that follow every prompt."""
        return [Scaled(self.token)]

    def units(self) -> dict[str, float]:
        """The unit of a step's length, for each of the token's vectors."""
        return self.policy.row_scales()

    def learn_from(
        self, prompts: Sequence[Prompt], folder: Path, inputs: str, should_stop: Callable[[], bool]
    ) -> int:
        """Let the teacher draw samples of the prompts in turn, or read them from `folder`.

        Args:
            prompts: the training prompts.
            folder: where the samples are kept.
            inputs: a digest of the teacher.
            should_stop: whether to stop, by raising Stopped.

        Returns:
            The number of samples.
        """
        raise NotImplementedError

    def batch(self, chosen: torch.Tensor, generator: torch.Generator) -> Losses:
        """The losses of one step's batch.

        The loss of a part of the batch is the mean over the part's samples, so that weighted parts add up to
        the loss of the batch. chosen: the numbers of the samples, [B]. generator: seeded for this step, for
        noise.
        """
        raise NotImplementedError

    def draw(self, prompts: Sequence[Prompt], seed: int) -> Samples:
        """One sample of each prompt with the token. The same seed draws the same samples."""
        raise NotImplementedError

    def explore(
        self, prompts: Sequence[Prompt], group: int, generator: torch.Generator
    ) -> tuple[Samples, Weighted]:
        """Samples with the token, and the loss by which they are reinforced.

        The loss of a part of them is the mean over the part. Along its gradient samples of positive advantage
        become likelier, and the others less likely.

        Args:
            prompts: P different ones.
            group: G, samples of each; the P G samples are prompt-major.
            generator: seeded for this step, for all noise.
        """
        raise NotImplementedError

    def write(self, folder: Path, token: Token) -> list[str]:
        """Write the files of a token for other tools; returns their names."""
        return write_token(folder, token)
