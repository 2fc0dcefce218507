"""What of a transformer an expert trains: an adapter on the frozen base, or all weights (`lora: null`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from ..config import RunConfig
from ..models.flow import FlowPolicy
from ..models.lora import attach_parents, attach_policy, fold, only, policy_deltas, swapped
from ..models.quantize import is_quantized, quantize
from ..models.whole import add_changes, differences, train_all
from ..ops.lowrank import Changes, LowRank


@dataclass(frozen=True)
class Trained:
    """What is trained.

    parameters: by name. anchor: a context in which the policy is the anchor, the round's start or the base.
    result: what values of the parameters have changed, as an expert's folder holds it.
    """

    parameters: dict[str, nn.Parameter]
    anchor: Callable[[], AbstractContextManager[None]]
    result: Callable[[Mapping[str, torch.Tensor]], Changes]


def train_adapter(
    policy: FlowPolicy, config: RunConfig, seed: int, parents: Mapping[str, LowRank] | None, apart: bool,
    anchor: Literal["round", "base", "average"],
) -> Trained:  # fmt: skip
    """Put a fresh adapter on a policy.

    Args:
        policy: the base.
        config: the recipe.
        seed: of the adapter's first values.
        parents: the sum of the earlier rounds' adapters, or None.
        apart: whether the parents stay an adapter of their own, because the loss looks at the base.
        anchor: what the KL is measured from.
    """
    transformer = policy.transformer
    if parents and not apart:
        fold(transformer, parents)
    if is_quantized(config.model):
        quantize(policy)
    if parents and apart:
        attach_parents(transformer, parents)
    targets = config.adapter.targets or policy.targets
    return Trained(
        attach_policy(transformer, config.adapter, targets, seed),
        lambda: only(transformer, policy=False, parents=anchor == "round"),
        lambda values: dict(policy_deltas(transformer, values)),
    )


def train_whole(
    policy: FlowPolicy, config: RunConfig, parents: Sequence[Path], looks: bool,
    anchor: Literal["round", "base", "average"],
) -> Trained:  # fmt: skip
    """Train all weights of a policy.

    Args:
        policy: the base, in float32.
        config: the recipe.
        parents: the folders of the earlier rounds' changes.
        looks: whether the loss looks at the anchor, of which a copy is then kept on the device.
        anchor: what the KL is measured from.
    """
    transformer = policy.transformer
    base = _copy(transformer) if looks and anchor == "base" else {}
    if parents:
        add_changes(transformer, parents)
    parameters = train_all(transformer, config.model)
    start = {name: value.cpu() for name, value in _copy(transformer).items()}
    anchored = base or ({name: value.to(policy.device) for name, value in start.items()} if looks else {})
    return Trained(
        parameters,
        lambda: swapped(parameters, anchored),
        lambda values: differences(values, start),
    )


def _copy(transformer: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in transformer.named_parameters()}
