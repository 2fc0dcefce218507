"""Scores for rewritten prompts: a recipe of pictures draws each and scores it by the user's own prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ...config import RunConfig
from ...environment import choose_device
from ...models.flow import Sampling
from ...models.loading import open_policy
from ...models.memory import memory_errors, to_draw
from ...planning.plan import derive_seed
from ...rewards.base import reward_of
from ...samples.media import medium_of
from ...samples.stamped import restored
from ...stages.claim import check
from ...types import ParetuneError, Prompt
from ..make_pairs import scored
from .drawing import Scorer


def picture_scorer(config: RunConfig, seed: int) -> Scorer:
    """Draws one picture for each text, all of a prompt from the same noise, and scores it for the prompt.

    Args:
        config: the recipe of pictures or clips.
        seed: of the noise.
    """
    medium = medium_of(config.model)
    if medium.lines:
        raise ParetuneError(f"--through: {config.name} draws {medium.name}; give a recipe of pictures")
    check(config)
    policy = open_policy(config.model, choose_device(config.executor.device))
    rewards = [reward_of(r, name) for name, r in config.rewards.items()]
    sampling = Sampling(config.model.steps, config.model.guidance_scale, batch=1)

    def score(prompt: Prompt, texts: Sequence[str]) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
        noise = derive_seed("pairs-rewrite", seed, prompt.text)
        with memory_errors(to_draw, config.model):
            drawn = [medium.draw_each(policy, text, [noise], sampling) for text in texts]
        samples = torch.cat([one for one in drawn if isinstance(one, torch.Tensor)])
        return scored(rewards, restored(samples), prompt, config.executor.reward_timeout)

    return score
