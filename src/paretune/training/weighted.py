"""A policy that is given weights of the rewards: what is trained of it, and what is asked before training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ..config import RunConfig
from ..models.weighting import Weighting, new_weighting, time_embedding
from ..planning.plan import ExpertTask, derive_seed
from ..types import ParetuneError
from .objectives.table import find_objective
from .trained import Trained

METHOD = "conditioned"
PREFIX = "weights."  # of the names of the embedding's parameters among those that are trained


def weighting_of(policy: Any, trained: Trained, task: ExpertTask) -> tuple[Trained, Weighting | None]:
    """Give a policy an embedding of weights, if its task draws them, and train it with the rest.

    The anchor is the policy without the embedding.
    """
    if task.scoring != "drawn":
        return trained, None
    weighting = new_weighting(policy, len(task.rewards), derive_seed(task.seed, "weights"))
    own: dict[str, nn.Parameter] = {f"{PREFIX}{n}": p for n, p in weighting.embedding.named_parameters()}

    @contextmanager
    def anchor() -> Iterator[None]:
        with trained.anchor(), weighting.off():
            yield

    return replace(trained, parameters={**trained.parameters, **own}, anchor=anchor), weighting


def take_values(embedding: nn.Module, values: Mapping[str, torch.Tensor]) -> None:
    """Give an embedding the values that training ended with, such as averages. values: by name, of all."""
    own = {name.removeprefix(PREFIX): v.detach() for name, v in values.items() if name.startswith(PREFIX)}
    embedding.load_state_dict(own)


def check_weighted(config: RunConfig) -> None:
    """Raise ParetuneError if the recipe asks for a policy with weights that its model cannot be."""
    if METHOD in config.methods and (fault := _fault(config)):
        raise ParetuneError(f"methods: {METHOD}: {fault}")


def _fault(config: RunConfig) -> str:
    if len(config.rewards) < 2:
        return "with one reward there is nothing to weigh; leave the method out"
    if not time_embedding(config.model):
        return (
            f"{config.model.path} has no time embedding that weights could be added to; leave the method out"
        )
    if config.lora is None:
        return "it trains an adapter; give the keys of lora, or leave the method out"
    objective = find_objective(config.objective.name)
    if not objective.takes_weights():
        return (
            f"objective {config.objective.name} does not draw its samples by weights; choose nft, awm or "
            "flow_grpo, or leave the method out"
        )
    return ""
