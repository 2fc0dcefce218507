"""What a model makes: how samples of a kind are drawn and kept as files. One table, by what samples are.

Stages and trainers pass samples on without looking: this is where a new kind of them is told.
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
    """What a sample costs. parameters: of the network that trains, if known. others: held beside it.

    tokens: of a sample and its prompt. draw, train: forward passes that drawing and training take.
    told: how samples are drawn, in words. working: bytes that an expert takes beside the weights, if known.
    """

    parameters: float | None
    others: float
    tokens: int
    draw: float
    train: float
    told: str
    working: float | None = None


class Work(NamedTuple):
    """How an expert trains on samples. draws: whether it draws them, or is given pairs. device: cpu or cuda.

    whole_logits: whether its loss holds a language model's scores of all words for all tokens at a time.
    """

    draws: bool = True
    device: str = "cuda"
    whole_logits: bool = False


class Medium(Protocol):
    """A kind of samples. name: as trainers are chosen by. component: where in a pipeline the adapters go.

    suffix: of a sample's file. longest: the characters that a prompt may have. lines: whether it may have
    several lines.
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
        """`evaluate.samples` of each prompt, prompt-major; the same seed draws alike from every model.

        tokens: reward tokens that follow every prompt.
        """
        ...

    def draw_each(
        self, policy: Policy, prompt: str, seeds: Sequence[int], sampling: Sampling,
        tokens: Sequence[Scaled] = (),
    ) -> Samples:  # fmt: skip
        """A sample a seed, each drawn alone: how many others are asked for changes no bit of it.

        As files hold them: pixels are bytes. `stamped.restored` gives what rewards take.
        """
        ...

    def settings(self, model: ModelConfig, sampling: Sampling) -> dict[str, Any]:
        """What `draw_each` draws by, by the names of a user's settings."""
        ...

    def content(self, samples: Samples, index: int, settings: Mapping[str, Any]) -> bytes:
        """The file of one sample of `draw_each`; it carries its settings where its format can."""
        ...

    def entry(self, samples: Samples, index: int) -> dict[str, Any]:
        """What a table can hold of a sample itself, {} where nothing."""
        ...

    def sheet(self, drawn: Sequence[Samples]) -> torch.Tensor | None:
        """All samples at a glance, uint8 [3, H, W]. drawn: of each request. None where there is none."""
        ...

    def save(self, samples: Samples, index: int, stem: Path) -> list[Path]:
        """Write one sample as `stem` with the suffix of its kind. Returns its files, the sample first."""
        ...

    def cost(self, config: RunConfig, work: Work) -> Cost | None:
        """What a sample costs, where the medium knows better than the estimate."""
        ...


class Pictures:
    """float32 [B, 3, H, W] in [0, 1], of a flow model."""

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
        """See `Medium.draw`. The noise comes from `seed`, not from the model."""
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
        """Nothing: pixels are in the file."""
        return {}

    def sheet(self, drawn: Sequence[Samples]) -> torch.Tensor | None:
        """A row a request."""
        return grid([own for own in drawn if isinstance(own, torch.Tensor)])

    def save(self, samples: Samples, index: int, stem: Path) -> list[Path]:
        """See `sample_files.save_sample`."""
        assert isinstance(samples, torch.Tensor)
        return save_sample(samples[index], stem)

    def cost(self, config: RunConfig, work: Work) -> Cost | None:
        """The estimate's own formula."""
        return None


class Clips(Pictures):
    """float32 [B, T, 3, H, W] in [0, 1], of a flow model."""

    name = "clips"
    suffix = ".mp4"

    def content(self, samples: Samples, index: int, settings: Mapping[str, Any]) -> bytes:
        """See `stamped.stamped_clip`."""
        assert isinstance(samples, torch.Tensor)
        return stamped_clip(samples[index], settings)

    def sheet(self, drawn: Sequence[Samples]) -> torch.Tensor | None:
        """A row a clip: its frames in order."""
        return grid([spaced_frames(clip) for own in drawn if isinstance(own, torch.Tensor) for clip in own])


# What samples are -> the class that knows how they are drawn and kept.
MEDIA = {"pictures": "media:Pictures", "clips": "media:Clips", "texts": "answers:Texts"}


def medium_of(config: ModelConfig) -> Medium:
    """What a recipe's model makes."""
    module, name = MEDIA[family_of(config.path).medium].split(":")
    return getattr(import_module(f".{module}", __package__), name)()
