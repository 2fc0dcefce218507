"""What a model makes: how samples of a kind are drawn and kept as files. One table, by family.

Stages and trainers pass samples on without looking: this is where a new kind of them is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from ..config import ModelConfig, RunConfig
from ..types import Prompt, Samples
from .flow import Sampling, sample
from .folders import family_of
from .sample_files import save_sample
from .tokens import Scaled


class Cost(NamedTuple):
    """What a sample costs. parameters: of the network that trains, if known. others: held beside it.

    tokens: of a sample and its prompt. draw, train: forward passes that drawing and training take.
    told: how samples are drawn, in words.
    """

    parameters: float | None
    others: float
    tokens: int
    draw: float
    train: float
    told: str


class Medium(Protocol):
    """A kind of samples. name: as trainers are chosen by. component: where in a pipeline the adapters go."""

    name: str
    component: str | None

    def draw(
        self, policy: Any, config: RunConfig, prompts: Sequence[Prompt], seed: int,
        tokens: Sequence[Scaled] = (),
    ) -> Samples:  # fmt: skip
        """`evaluate.samples` of each prompt, prompt-major; the same seed draws alike from every model.

        tokens: reward tokens that follow every prompt.
        """
        ...

    def save(self, samples: Samples, index: int, stem: Path) -> list[Path]:
        """Write one sample as `stem` with the suffix of its kind. Returns its files, the sample first."""
        ...

    def cost(self, config: RunConfig) -> Cost | None:
        """What a sample costs, where the medium knows better than the estimate."""
        ...


class Pictures:
    """float32 [B, 3, H, W] in [0, 1], of a flow model."""

    name: str = "pictures"
    component: str | None = "transformer"

    @torch.no_grad()
    def draw(
        self, policy: Any, config: RunConfig, prompts: Sequence[Prompt], seed: int,
        tokens: Sequence[Scaled] = (),
    ) -> Samples:  # fmt: skip
        """See `Medium.draw`. The noise comes from `seed`, not from the model."""
        settings = config.evaluate
        guidance = settings.guidance_scale
        guidance = config.model.guidance_scale if guidance is None else guidance
        conditions = policy.encode([p.text for p in prompts], guidance > 1, tokens)
        generator = torch.Generator().manual_seed(seed)
        noise = policy.initial_noise(len(prompts) * settings.samples, generator)
        index = torch.arange(len(prompts)).repeat_interleave(settings.samples)
        sampling = Sampling(settings.steps, guidance, batch=settings.batch_size)
        return policy.decode(sample(policy, conditions.select(index), noise, sampling).clean)

    def save(self, samples: Samples, index: int, stem: Path) -> list[Path]:
        """See `sample_files.save_sample`."""
        assert isinstance(samples, torch.Tensor)
        return save_sample(samples[index], stem)

    def cost(self, config: RunConfig) -> Cost | None:
        """The estimate's own formula."""
        return None


class Clips(Pictures):
    """float32 [B, T, 3, H, W] in [0, 1], of a flow model."""

    name = "clips"


# Families whose samples are no pictures.
MEDIA = {"hunyuan_video": "media:Clips", "causal_lm": "causal_lm:Texts"}


def medium_of(config: ModelConfig) -> Medium:
    """What a recipe's model makes."""
    place = MEDIA.get(family_of(config.path))
    if place is None:
        return Pictures()
    module, name = place.split(":")
    return getattr(import_module(f".{module}", __package__), name)()
