"""Policies of a published model's true size with random weights, to measure its needs without downloading it.

The text encoders are left out because they are released before training. The configurations are those of the
published models, in the records of their families.
"""
# pyright: reportPrivateImportUsage=false
# diffusers fills its namespace lazily, so that its public names look private.

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from accelerate import init_empty_weights

from ..config import ModelConfig
from .family import Family, Published, by_hub_id, families, transformers_of
from .flow import Conditions
from .pipelines import PipelinePolicy


def random_policy(config: ModelConfig, device: str) -> PipelinePolicy | None:
    """A policy with random weights for a published model; None for any other path."""
    family = by_hub_id().get(config.path)
    published = family.published.get(config.path) if family else None
    if family is None or published is None or not published.vae:
        return None
    return policy_of(family, published, config, device)


def known_sizes() -> list[str]:
    """The hub ids for which `random_policy` gives a policy."""
    published = [entry for family in families().values() for entry in family.published.items()]
    return [name for name, sizes in published if sizes.vae]


def policy_of(family: Family, published: Published, config: ModelConfig, device: str) -> PipelinePolicy:
    """A policy of a family with random weights of the published sizes."""
    import diffusers

    pipeline: Any = getattr(diffusers, family.pipelines[0])
    kind: Any = getattr(diffusers, family.transformer)
    networks = transformers_of(published.billions)
    parts = {
        **{name: _random(kind, published, config, device) for name in networks},
        "vae": getattr(diffusers, published.vae_class)(**published.vae),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(),
    }
    others = [name for name in pipeline._get_signature_types() if name not in parts]
    whole = pipeline(**parts, **{**dict.fromkeys(others), **published.index})
    module, name = family.policy.split(":")
    policy: type[PipelinePolicy] = getattr(import_module(module), name)

    class Random(policy):
        def load(self) -> Any:
            return whole

    return Random(config, device)


def random_conditions(policy: PipelinePolicy, count: int) -> Conditions:
    """Random conditions with the shape of full-length prompts."""
    tokens = policy.options.max_sequence_length or policy.family.text_tokens(policy.config)
    sizes = policy.text_widths()
    embeds = torch.randn(count, tokens, sizes["embeds"], device=policy.device, dtype=policy.dtype)
    pooled = None
    if "pooled" in sizes:
        pooled = torch.randn(count, sizes["pooled"], device=policy.device, dtype=policy.dtype)
    mask = torch.ones(count, tokens, device=policy.device)
    negative = embeds[:1], None if pooled is None else pooled[:1]
    more = policy.random_more(count)
    against = {name: value[:1] for name, value in more.items()}
    return Conditions(embeds, pooled, *negative, mask, mask[:1], more, against)


def _random(kind: Any, published: Published, config: ModelConfig, device: str) -> Any:
    """A random model on the device in the recipe's dtype, without a larger copy in memory."""
    # The weights alone are left out. Buffers and other tables, as of positions, have their true values.
    with init_empty_weights():
        model = kind(**published.transformer)
    dtype = getattr(torch, config.dtype)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            weight = torch.empty(parameter.shape, dtype=dtype, device=device)
            setattr(module, name, torch.nn.Parameter(weight.normal_(std=0.02)))
    return model.to(device, dtype)
