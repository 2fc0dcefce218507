"""The kinds of samples, in one table: how each kind is drawn, saved and costed.

Stages and trainers pass samples on without looking inside, so a new kind of samples is defined here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import torch

from ..config import ModelConfig, RunConfig
from ..models.detect import family_of
from ..models.flow import FlowPolicy, Sampling, sample
from ..models.policy import Policy
from ..reward_tokens.pipelines import Scaled
from ..types import Prompt, Samples
from .files import as_bytes, save_sample, spaced_frames
from .stamped import grid, stamped_clip, stamped_png


class Cost(NamedTuple):
    """The cost of a sample.

    parameters: of the network that is trained, if known. others: parameters of other models in memory.
    tokens: of a sample and its prompt. draw, train: forward passes that drawing and training take.
    description: how samples are drawn, in words. working: bytes that an expert takes beside the weights.
    adapter: numbers of an adapter. blocks, in_blocks: how many blocks the network has that several devices
    can divide, and the parameters in them. Those three are 0 where the sizes inside are not known.
    """

    parameters: float | None
    others: float
    tokens: int
    draw: float
    train: float
    description: str
    working: float | None = None
    adapter: int = 0
    blocks: int = 0
    in_blocks: float = 0.0


class Work(NamedTuple):
    """How an expert trains on samples. draws: whether it draws them, or is given pairs. device: cpu or cuda.

    answers: how many given answers a sample is, which are read and trained on together. whole_logits: whether
    its loss holds a language model's scores of all words for all tokens at a time.
    """

    draws: bool = True
    device: str = "cuda"
    whole_logits: bool = False
    answers: int = 2


class Medium(Protocol):
    """A kind of samples.

    name: the key by which a trainer is chosen. component: the part of a pipeline that gets the adapters.
    suffix: of a sample's file. longest: the most characters that a prompt may have. lines: whether a prompt
    may have several lines.
    """

    name: str
    component: str | None
    suffix: str
    longest: int
    lines: bool

    def draw(
        self, policy: Policy, config: RunConfig, prompts: Sequence[Prompt], seed: int,
        tokens: Sequence[Scaled] = (),
    ) -> Samples:  # fmt: skip
        """Draw `evaluate.samples` samples of each prompt, prompt-major.

        Args:
            policy: the model.
            config: the run's configuration.
            prompts: the prompts.
            seed: the same seed gives every model the same random numbers.
            tokens: reward tokens that follow every prompt.
        """
        ...

    def draw_each(
        self, policy: Policy, prompt: str, seeds: Sequence[int], sampling: Sampling,
        tokens: Sequence[Scaled] = (),
    ) -> Samples:  # fmt: skip
        """Draw one sample per seed, each alone, so that a sample does not depend on how many are drawn.

        Args:
            policy: the model.
            prompt: the prompt.
            seeds: one per sample.
            sampling: steps and guidance, for flow models.
            tokens: reward tokens that follow the prompt.

        Returns:
            The samples as files store them: pixels are bytes. `stamped.restored` converts them for rewards.
        """
        ...

    def settings(self, model: ModelConfig, sampling: Sampling) -> dict[str, Any]:
        """The settings that `draw_each` uses, by the names that a user gives them."""
        ...

    def content(self, samples: Samples, index: int, settings: Mapping[str, Any]) -> bytes:
        """The file of one sample of `draw_each`, with its settings inside where the format allows it."""
        ...

    def entry(self, samples: Samples, index: int) -> dict[str, Any]:
        """The parts of a sample that a table can hold; {} for pixels."""
        ...

    def sheet(self, drawn: Sequence[Samples]) -> torch.Tensor | None:
        """An overview of the samples of all requests, uint8 [3, H, W]; None for kinds without one."""
        ...

    def save(self, samples: Samples, index: int, stem: Path) -> list[Path]:
        """Write one sample to `stem` with the suffix of its kind. Returns its files, the sample first."""
        ...

    def cost(self, config: RunConfig, work: Work) -> Cost | None:
        """The cost of a sample, or None where the estimate's general formula applies."""
        ...


class Pictures:
    """Pictures of a flow model: float32 [B, 3, H, W] in [0, 1]."""

    name: str = "pictures"
    component: str | None = "transformer"
    suffix: str = ".png"
    longest: int = 1000
    lines: bool = False

    @torch.no_grad()
    def draw(
        self, policy: Policy, config: RunConfig, prompts: Sequence[Prompt], seed: int,
        tokens: Sequence[Scaled] = (),
    ) -> Samples:  # fmt: skip
        """See `Medium.draw`. The noise depends on `seed`, not on the model."""
        settings = config.evaluate
        guidance = settings.guidance_scale
        guidance = config.model.guidance_scale if guidance is None else guidance
        flow = cast("FlowPolicy", policy)
        conditions = flow.encode([p.text for p in prompts], guidance > 1, tokens)
        generator = torch.Generator().manual_seed(seed)
        noise = flow.initial_noise(len(prompts) * settings.samples, generator)
        index = torch.arange(len(prompts)).repeat_interleave(settings.samples)
        sampling = Sampling(settings.steps, guidance, batch=settings.batch_size)
        return flow.decode(sample(flow, conditions.select(index), noise, sampling).clean)

    @torch.no_grad()
    def draw_each(
        self, policy: Policy, prompt: str, seeds: Sequence[int], sampling: Sampling,
        tokens: Sequence[Scaled] = (),
    ) -> Samples:  # fmt: skip
        """See `Medium.draw_each`. A seed gives the same noise for every prompt and model."""
        flow = cast("FlowPolicy", policy)
        conditions = flow.encode([prompt], sampling.guidance > 1, tokens)
        drawn = []
        for seed in seeds:
            noise = flow.initial_noise(1, torch.Generator().manual_seed(seed))
            drawn.append(as_bytes(flow.decode(sample(flow, conditions, noise, sampling).clean)))
        return torch.cat(drawn)

    def settings(self, model: ModelConfig, sampling: Sampling) -> dict[str, Any]:
        """Steps and guidance."""
        return {"steps": sampling.steps, "guidance_scale": sampling.guidance}

    def content(self, samples: Samples, index: int, settings: Mapping[str, Any]) -> bytes:
        """See `stamped.stamped_png`."""
        assert isinstance(samples, torch.Tensor)
        return stamped_png(samples[index], settings)

    def entry(self, samples: Samples, index: int) -> dict[str, Any]:
        """Nothing, because pixels are in the file."""
        return {}

    def sheet(self, drawn: Sequence[Samples]) -> torch.Tensor | None:
        """A grid with one row per request."""
        return grid([pictures for pictures in drawn if isinstance(pictures, torch.Tensor)])

    def save(self, samples: Samples, index: int, stem: Path) -> list[Path]:
        """See `files.save_sample`."""
        assert isinstance(samples, torch.Tensor)
        return save_sample(samples[index], stem)

    def cost(self, config: RunConfig, work: Work) -> Cost | None:
        """None: the estimate's formula applies."""
        return None


class Clips(Pictures):
    """Clips of a flow model: float32 [B, T, 3, H, W] in [0, 1]."""

    name = "clips"
    suffix = ".mp4"

    def content(self, samples: Samples, index: int, settings: Mapping[str, Any]) -> bytes:
        """See `stamped.stamped_clip`."""
        assert isinstance(samples, torch.Tensor)
        return stamped_clip(samples[index], settings)

    def sheet(self, drawn: Sequence[Samples]) -> torch.Tensor | None:
        """A grid with one row per clip, its frames in order."""
        return grid(
            [spaced_frames(clip) for clips in drawn if isinstance(clips, torch.Tensor) for clip in clips]
        )


# Kind of samples -> "module:Class" of its medium.
MEDIA = {"pictures": "media:Pictures", "clips": "media:Clips", "texts": "answers:Texts"}


def medium_of(config: ModelConfig) -> Medium:
    """The kind of samples that a recipe's model draws."""
    module, name = MEDIA[family_of(config.path).medium].split(":")
    return getattr(import_module(f".{module}", __package__), name)()
