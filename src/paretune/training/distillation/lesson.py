"""The part of distillation that differs between kinds of models: samples of the student, and their loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from ...config import RunConfig
from ...models.lora import POLICY, alone, attach_parents, policy_parameters, switch
from ...ops.distilling import Distilling
from ...ops.lowrank import LowRank
from ...types import Prompt


@dataclass(frozen=True)
class Pupils:
    """What a lesson is made of.

    prompts: of all rewards, one set after the other. owner: [prompts], the expert whose prompts they are.
    names: of the N experts' rewards. parents: the sum of the earlier rounds, or None. student: the change
    that the student starts with. experts: the changes of the N experts. All lie on the model that `parents`
    make of the base.
    """

    config: RunConfig
    settings: Distilling
    prompts: Sequence[Prompt]
    owner: torch.Tensor
    names: Sequence[str]
    parents: Mapping[str, LowRank] | None
    student: Mapping[str, LowRank]
    experts: Sequence[Mapping[str, LowRank]]

    def by_expert(self, values: torch.Tensor, owner: torch.Tensor) -> torch.Tensor:
        """The sums of the values [B] of samples whose experts are `owner` [B]: [N], on the CPU."""
        sums = torch.zeros(len(self.experts))
        return sums.index_add_(0, owner, values.detach().float().cpu())


@dataclass(frozen=True)
class Part:
    """A share of a batch's loss, whose graph is held alone in memory.

    loss: with a gradient; the parts of a batch add up to its (weighted) mean. distances: between the student
    and each of the N experts on that expert's prompts, squared, [N] on the CPU. sizes: of what is compared,
    squared, [N], which tells when they differ by rounding alone.
    """

    loss: torch.Tensor
    distances: torch.Tensor
    sizes: torch.Tensor


class Batch(Protocol):
    """Samples that the student drew."""

    def parts(self, chosen: torch.Tensor) -> Iterator[Part]:
        """The share of the samples at the places `chosen`. Take the gradient of one part before the next."""
        ...


class Lesson(Protocol):
    """A model with the student and all experts as adapters, one active at a time.

    parameters: of the student, by name.
    """

    policy: Any
    parameters: dict[str, torch.nn.Parameter]

    def draw(self, index: torch.Tensor, generator: torch.Generator) -> Batch:
        """Let the student draw one sample of each prompt in `index`, [B]."""
        ...


def attach(transformer: torch.nn.Module, pupils: Pupils) -> dict[str, torch.nn.Parameter]:
    """Put the experts and the student on the model, in float32. Returns the student's parameters, by name."""
    transformer.requires_grad_(False)
    adapters = {expert_name(number): expert for number, expert in enumerate(pupils.experts)}
    adapters[POLICY] = pupils.student
    for name, deltas in adapters.items():
        attach_parents(transformer, deltas, name, torch.float32)
    switch(transformer, POLICY)
    return policy_parameters(transformer)


def expert_name(number: int) -> str:
    """The adapter of an expert."""
    return f"expert{number}"


def as_expert(policy: Any, number: int | None) -> AbstractContextManager[None]:
    """A context in which the model is an expert; with None the model that the round began with."""
    return alone(policy.transformer, None if number is None else expert_name(number))
