"""`paretune plan --measure`: the memory that one update takes on this machine.

A model on disk is loaded as a run loads it; a hub model of known size gets random weights instead, so that
nothing is downloaded.
"""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from typing import Any

import torch

from ..config import RunConfig
from ..models.detect import check_model
from ..models.lora import attach_policy
from ..models.memory import memory_errors, to_train
from ..models.quantize import is_quantized, open_to_train, quantize
from ..samples.media import medium_of
from ..types import ParetuneError


@dataclass(frozen=True)
class Peak:
    """gigabytes: at most in use at a time. seconds: of one micro-batch's update. samples: in it."""

    device: str
    gigabytes: float
    seconds: float
    samples: int
    random_weights: bool

    def __str__(self) -> str:
        weights = "random weights of the true size" if self.random_weights else "the model's own weights"
        return (
            f"measured: {self.gigabytes:.2f} GB at most on {self.device}, {self.seconds:.1f} s an update of "
            f"{self.samples} samples ({weights}; on a CPU the whole process counts)"
        )


def measure_update(config: RunConfig, device: str) -> Peak:
    """One forward and backward pass of a micro-batch and one optimiser step, as an expert does them."""
    device = "cuda:0" if device == "cuda" else device
    samples = min(config.train.micro_batch, config.train.prompts_per_epoch * config.train.group_size)
    with memory_errors(to_train, config, begun=False):
        policy, conditions = _policy(config, device, samples)
        known = conditions is not None
        if conditions is None:
            conditions = policy.encode(["a"] * samples, config.model.guidance_scale > 1)
            policy.free_text()
        policy.autocast = config.train.autocast
        if is_quantized(config.model):
            quantize(policy)
        targets = config.lora.targets or policy.targets
        parameters = list(attach_policy(policy.transformer, config.lora, targets, seed=0).values())
        policy.transformer.to(policy.device)
        optimiser = torch.optim.AdamW(parameters, lr=config.train.learning_rate)
        x = policy.initial_noise(samples, torch.Generator().manual_seed(0)).to(policy.device)
        sigma = torch.full((samples,), 0.5, device=policy.device)
        if policy.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        v = policy.velocity(x, sigma, conditions, config.model.guidance_scale)
        v.square().mean().backward()
        optimiser.step()
        peak = _peak(policy.device)
    return Peak(device, peak / 1e9, time.perf_counter() - start, samples, known)


def _policy(config: RunConfig, device: str, samples: int) -> tuple[Any, Any]:
    """A policy, and conditions for it where it has random weights and no text encoders."""
    if check_model(config.model.path) is not None:
        if medium_of(config.model).component is None:
            raise ParetuneError("plan --measure knows flow models; leave it out for a language model")
        return open_to_train(config.model, device), None
    from ..models.true_sizes import known_sizes, random_conditions, random_policy

    policy = random_policy(config.model, "cpu" if is_quantized(config.model) else device)
    if policy is None:
        known = ", ".join(known_sizes())
        raise ParetuneError(f"plan --measure knows the size of {known}; {config.model.path} is none of them")
    policy.device = torch.device(device)
    return policy, random_conditions(policy, samples)


def _peak(device: torch.device) -> float:
    """Bytes: of a GPU what torch holds, of a CPU what the process has held."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return float(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
