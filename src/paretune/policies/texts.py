"""What a language model makes: answers. How they are drawn, kept as files and counted (`media.Medium`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..config import ModelConfig, RunConfig
from ..files import write_text
from ..types import Prompt, Samples
from .flow import Sampling
from .media import Cost
from .options import TextOptions, read_options
from .sizes import parameters_of
from .tokens import Scaled


class Texts:
    """A list of answers. See `media.Medium`."""

    name: str = "texts"
    component: str | None = None
    suffix: str = ".txt"
    longest: int = 200_000  # a dialogue; the model's own context is what ends it
    lines: bool = True

    def draw(
        self, policy: Any, config: RunConfig, prompts: Sequence[Prompt], seed: int,
        tokens: Sequence[Scaled] = (),
    ) -> Samples:  # fmt: skip
        """See `media.Medium.draw`."""
        repeated = [p.text for p in prompts for _ in range(config.evaluate.samples)]
        return policy.answer(repeated, seed, config.evaluate.batch_size, tokens)

    def draw_each(
        self, policy: Any, prompt: str, seeds: Sequence[int], sampling: Sampling,
        tokens: Sequence[Scaled] = (),
    ) -> Samples:  # fmt: skip
        """See `media.Medium.draw_each`."""
        return [policy.answer([prompt], seed, 1, tokens)[0] for seed in seeds]

    def settings(self, model: ModelConfig, sampling: Sampling) -> dict[str, Any]:
        """The model's options; steps and guidance are of flow models."""
        options = read_options(TextOptions, model).model_dump()
        return {name: options[name] for name in ("template", "max_tokens", "temperature", "top_p")}

    def content(self, samples: Samples, index: int, settings: Mapping[str, Any]) -> bytes:
        """The answer, to the letter."""
        return str(samples[index]).encode()

    def entry(self, samples: Samples, index: int) -> dict[str, Any]:
        """The answer."""
        return {"text": samples[index]}

    def sheet(self, drawn: Sequence[Samples]) -> torch.Tensor | None:
        """None: answers stand in the table."""
        return None

    def save(self, samples: Samples, index: int, stem: Path) -> list[Path]:
        """A text file."""
        path = stem.with_suffix(".txt")
        write_text(path, str(samples[index]).strip())
        return [path]

    def cost(self, config: RunConfig) -> Cost | None:
        """Drawing reads every token once; training once more, and the reference where there is an anchor."""
        own = parameters_of(config.model.path)
        settings = read_options(TextOptions, config.model)
        rewards = [parameters_of(str(r.options.get("model", ""))) or 0.0 for r in config.rewards.values()]
        reference = config.objective.kl > 0 or any(r.kl for r in config.rewards.values())
        answers = 2 if config.objective.pairs else 1  # a pair is trained on as it is; nothing is drawn
        drawn = 0 if config.objective.pairs else 1
        return Cost(
            own, max(rewards, default=0.0), settings.prompt_tokens + settings.max_tokens,
            draw=float(drawn + (answers if reference else 0)), train=float(answers),
            told=f"answers of up to {settings.max_tokens} tokens, temperature {settings.temperature:g}",
        )  # fmt: skip
