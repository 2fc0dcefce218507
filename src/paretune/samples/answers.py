"""The samples of a language model: how answers are drawn, saved and costed (`media.Medium`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from ..config import ModelConfig, RunConfig
from ..files import write_text
from ..models.causal_lm.family import REWARD_MODELS, TextOptions
from ..models.causal_lm.shape import TextShape, read_text_shape
from ..models.flow import Sampling
from ..models.options import read_options
from ..models.policy import Policy
from ..models.sizes import parameters_of
from ..reward_tokens.pipelines import Scaled
from ..types import Prompt, Samples
from .answer_memory import adapter_size, working_bytes
from .media import Cost, Work

if TYPE_CHECKING:
    from ..models.causal_lm.policy import CausalLMPolicy


class Texts:
    """A list of answers. See `media.Medium`."""

    name: str = "texts"
    component: str | None = None
    suffix: str = ".txt"
    longest: int = 200_000  # enough for a dialogue; the real limit is the model's context
    lines: bool = True

    def draw(
        self, policy: Policy, config: RunConfig, prompts: Sequence[Prompt], seed: int,
        tokens: Sequence[Scaled] = (),
    ) -> Samples:  # fmt: skip
        """See `media.Medium.draw`."""
        repeated = [p.text for p in prompts for _ in range(config.evaluate.samples)]
        return cast("CausalLMPolicy", policy).answer(repeated, seed, config.evaluate.batch_size, tokens)

    def draw_each(
        self, policy: Policy, prompt: str, seeds: Sequence[int], sampling: Sampling,
        tokens: Sequence[Scaled] = (),
    ) -> Samples:  # fmt: skip
        """See `media.Medium.draw_each`."""
        text = cast("CausalLMPolicy", policy)
        return [text.answer([prompt], seed, 1, tokens)[0] for seed in seeds]

    def settings(self, model: ModelConfig, sampling: Sampling) -> dict[str, Any]:
        """The model's options; steps and guidance apply to flow models only."""
        options = read_options(TextOptions, model).model_dump()
        return {name: options[name] for name in ("template", "max_tokens", "temperature", "top_p")}

    def content(self, samples: Samples, index: int, settings: Mapping[str, Any]) -> bytes:
        """The answer, unchanged."""
        return str(samples[index]).encode()

    def entry(self, samples: Samples, index: int) -> dict[str, Any]:
        """The answer."""
        return {"text": samples[index]}

    def sheet(self, drawn: Sequence[Samples]) -> torch.Tensor | None:
        """None: the table shows the answers."""
        return None

    def save(self, samples: Samples, index: int, stem: Path) -> list[Path]:
        """Write a text file."""
        path = stem.with_name(f"{stem.name}.txt")
        write_text(path, str(samples[index]).strip())
        return [path]

    def cost(self, config: RunConfig, work: Work) -> Cost | None:
        """Drawing reads every token once and training once more; a KL term adds a pass of the reference."""
        parameters = parameters_of(config.model.path)
        settings = read_options(TextOptions, config.model)
        judges = [str(r.options.get("model", "")) for r in config.rewards.values()]
        rewards = [parameters_of(name) or 1e9 * REWARD_MODELS.get(name, 0.0) for name in judges]
        reference = config.objective.kl > 0 or any(r.kl for r in config.rewards.values())
        shape = read_text_shape(config.model.path)
        working = None if shape is None else working_bytes(config, shape, settings, work)
        answers, drawn = (1, 1) if work.draws else (work.answers, 0)  # given answers are not drawn
        inside = (0, 0, 0.0) if shape is None or parameters is None else _inside(config, shape, parameters)
        return Cost(
            parameters, max(rewards, default=0.0), settings.prompt_tokens + settings.max_tokens,
            float(drawn + (answers if reference else 0)), float(answers),
            f"answers of up to {settings.max_tokens} tokens, temperature {settings.temperature:g}",
            working, *inside,
        )  # fmt: skip


def _inside(config: RunConfig, shape: TextShape, parameters: float) -> tuple[int, int, float]:
    """The adapter's numbers, the blocks, and the parameters in them: no more than beside the words' table."""
    in_blocks = min(shape.layers * shape.layer_parameters, parameters - shape.vocabulary * shape.hidden)
    return adapter_size(config.adapter, shape), shape.layers, in_blocks
