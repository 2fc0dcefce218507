"""The model that is analysed and its reference: two states of one loaded model, or two models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch

from ...adapters.store import load_delta
from ...config import ModelConfig, RunConfig
from ...environment import choose_device
from ...foreign.gguf import is_gguf
from ...models.causal_lm.answer_ids import tokenizer_digest
from ...models.causal_lm.given_answers import Given, distributions
from ...models.causal_lm.policy import CausalLMPolicy
from ...models.detect import EMBEDDED, settings_of
from ...models.loading import open_policy
from ...models.lora import folded
from ...ops.lowrank import LowRank
from ...planning.methods import build_plan
from ...recipes import find_recipe, load_config
from ...samples.media import medium_of
from ...types import ParetuneError
from ..export import open_final
from ..guest_adapters import guest_changes

AT_ONCE = 16  # answers whose distributions over all words are held at a time


@dataclass(frozen=True)
class Side:
    """A language model with changes. name: for tables."""

    name: str
    policy: CausalLMPolicy
    deltas: dict[str, LowRank] = field(default_factory=dict[str, LowRank])

    @contextmanager
    def at_work(self) -> Iterator[CausalLMPolicy]:
        """The model with its changes, for the length of a block."""
        with folded(self.policy.transformer, self.deltas):
            yield self.policy


def open_text_model(model: ModelConfig, device: str = "auto") -> CausalLMPolicy:
    """A language model. Raises ParetuneError for a model of pictures or clips."""
    if medium_of(model).name != "texts":
        raise ParetuneError(f"{model.path} is no language model; analyses are of answers")
    return cast(CausalLMPolicy, open_policy(model, choose_device(device)))


def open_sides(model: str, reference: str | None, adapter: str | None) -> tuple[Side, Side]:
    """The model and its reference.

    Args:
        model: a finished run, whose final model it is and whose base is the reference; or a model.
        reference: another model in the place of the base.
        adapter: an adapter over the model, whose plain state is then the reference.

    Raises:
        ParetuneError: if there is no second model, or if the two split answers into different tokens.
    """
    run = (Path(model) / "config.yaml").exists()
    if adapter is not None and run:
        raise ParetuneError("--adapter is over a model, and --model is a run, which has its own: give one")
    if not run and adapter is None and reference is None:
        raise ParetuneError(
            f"--model {model} has nothing to be compared with: give --adapter LORA, --reference MODEL, "
            "or a run"
        )
    deltas: dict[str, LowRank] = {}
    if run:
        config, final = open_final(Path(model))
        settings, deltas = config.model, load_delta([final])
    else:
        settings = settings_for(model)
    policy = open_text_model(settings)
    if adapter is not None:
        deltas = guest_changes("--adapter", adapter, settings.path, policy.transformer, Path())
    if reference is None:
        return Side(model, policy, deltas), Side("base", policy)
    second = open_text_model(settings_for(reference))
    if tokenizer_digest(second) != tokenizer_digest(policy):
        raise ParetuneError(
            f"--reference {reference} has another tokenizer than {model}: give a model of the same kind"
        )
    return Side(model, policy, deltas), Side(reference, second)


def divergences(side: Side, other: Side, answers: Sequence[Given]) -> torch.Tensor:
    """KL(side || other) of the next word, summed over the tokens of each answer. [N], never negative.

    The mean over answers that `side` drew at temperature 1 is the KL of the answers, with less noise than
    the mean of their log-ratios.
    """
    found: list[float] = []
    for first in range(0, len(answers), AT_ONCE):
        part = answers[first : first + AT_ONCE]
        with side.at_work() as policy:
            ours = list(distributions(policy, part))
        with other.at_work() as policy:
            found += [
                float((p.double().exp() * (p - q).double()).nan_to_num(0.0).sum())
                for p, q in zip(ours, distributions(policy, part), strict=True)
            ]
    return torch.tensor(found)


def settings_for(model: str) -> ModelConfig:
    """How a model is opened: as a recipe's file says, or a bare model as its family does by default."""
    if Path(model).suffix in {".yaml", ".yml"}:
        return load_config(find_recipe(model)).model
    named = model in EMBEDDED or is_gguf(model)
    if not Path(model).exists() and not named and model.count("/") != 1:
        raise ParetuneError(
            f"there is no model {model}; give a run, a recipe's file, a model's folder or a hub id"
        )
    return ModelConfig.model_validate({"path": model, **settings_of(model)})


def experts_of(config: RunConfig, run: Path) -> dict[str, list[Path]]:
    """Name -> the adapters, over the base, of each expert of the last round of the run's first method."""
    tasks = build_plan(config).methods[0].rounds[-1].tasks
    return {task.reward: [run / folder for folder in (*task.parents, task.folder)] for task in tasks}
