"""Pipelines of the true size with random weights: what a hub model needs can be measured without it.

The text encoders are left out: they are gone when training begins. Configurations are those that the models
are published with, in their families' records.
"""
# pyright: reportPrivateImportUsage=false
# diffusers fills its namespace lazily, so that its public names look private.

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch

from ..config import ModelConfig
from .family import Family, Published, by_hub_id, families
from .flow import Conditions
from .pipelines import PipelinePolicy


def random_policy(config: ModelConfig, device: str) -> PipelinePolicy | None:
    """A policy on random weights for a hub model whose size is known; None for others."""
    family = by_hub_id().get(config.path)
    published = family.published.get(config.path) if family else None
    if family is None or published is None or not published.vae:
        return None
    return policy_of(family, published, config, device)


def known_sizes() -> list[str]:
    """The hub ids for which `random_policy` has one."""
    published = [one for own in families().values() for one in own.published.items()]
    return [name for name, sizes in published if sizes.vae]


def policy_of(family: Family, published: Published, config: ModelConfig, device: str) -> PipelinePolicy:
    """A family's policy on random weights of the sizes given."""
    import diffusers

    pipeline: Any = getattr(diffusers, family.pipelines[0])
    parts = {
        "transformer": _random(getattr(diffusers, family.transformer), published, config, device),
        "vae": getattr(diffusers, published.vae_class)(**published.vae),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(),
    }
    others = [name for name in pipeline._get_signature_types() if name not in parts]
    whole = pipeline(**parts, **dict.fromkeys(others))
    module, name = family.policy.split(":")
    kind: type[PipelinePolicy] = getattr(import_module(module), name)

    class Random(kind):
        def load(self) -> Any:
            return whole

    return Random(config, device)


def random_conditions(policy: PipelinePolicy, count: int) -> Conditions:
    """Conditions of the right shape, of full-length prompts."""
    tokens = policy.options.max_sequence_length or policy.family.text_tokens(policy.config)
    sizes = policy.text_widths()
    embeds = torch.randn(count, tokens, sizes["embeds"], device=policy.device, dtype=policy.dtype)
    pooled = None
    if "pooled" in sizes:
        pooled = torch.randn(count, sizes["pooled"], device=policy.device, dtype=policy.dtype)
    mask = torch.ones(count, tokens, device=policy.device)
    negative = embeds[:1], None if pooled is None else pooled[:1]
    return Conditions(embeds, pooled, *negative, mask, mask[:1])


def _random(kind: Any, published: Published, config: ModelConfig, device: str) -> Any:
    """A model on the device in the recipe's dtype, never larger than that in memory."""
    with torch.device("meta"):
        model = kind(**published.transformer)
    model = model.to(getattr(torch, config.dtype)).to_empty(device=device)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.02)
    return model
