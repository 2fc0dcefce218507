"""`paretune plan --measure`: the memory and the hours that follow from a recipe's own steps on this machine.

A model on disk is loaded as a run loads it; a hub model of known size gets random weights instead, so that
nothing is downloaded. Of a flow model one forward pass and one update of a micro-batch are timed, without
rewards; of a language model a short epoch of its trainer. The hours are of training and Reduce,
by the plan's samples.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..config import RunConfig
from ..inputs.pictures import blank_picture
from ..models.detect import check_model, family_of
from ..models.family import by_hub_id
from ..models.lora import attach_policy
from ..models.memory import memory_errors, to_train
from ..models.quantize import is_quantized, open_to_train, quantize
from ..types import ParetuneError, Pictured
from .devices import spoken
from .estimate import passes_of, reduce_passes
from .plan import Plan

QUICK = 3.0  # seconds of a first step, which warms up, up to which it is done again and that is timed


@dataclass(frozen=True)
class Peak:
    """gigabytes: at most in use at a time. samples: of a micro-batch, or of a language model's short epoch.

    seconds: of one update of them. draw_seconds: of one forward pass; of a language model 0, for its update
    draws the answers too. random_weights: of the true size. hours: by method, of training and
    Reduce, where asked for.
    """

    device: str
    gigabytes: float
    seconds: float
    samples: int
    random_weights: bool
    draw_seconds: float = 0.0
    hours: dict[str, float] | None = None

    def __str__(self) -> str:
        weights = "random weights of the true size" if self.random_weights else "the model's own weights"
        what = "an update" if self.draw_seconds else "a short epoch"
        told = (
            f"measured: {self.gigabytes:.2f} GB at most on {self.device}, {self.seconds:.1f} s {what} of "
            f"{self.samples} samples ({weights}; on a CPU the whole process counts)"
        )
        if self.hours:
            times = ", ".join(f"{name} {spoken(3600 * hours)}" for name, hours in self.hours.items())
            told += f"; from that training and Reduce take, the experts one after another: {times}"
        return told


def measure_update(config: RunConfig, device: str, plan: Plan | None = None) -> Peak:
    """The recipe's own steps, as an expert does them. plan: whose hours are worked out."""
    device = "cuda:0" if device == "cuda" else device
    family = check_model(config.model.path) or by_hub_id().get(config.model.path)
    if family is not None and family.medium == "texts":
        return _measure_answers(config, device, plan)
    samples = min(config.train.micro_batch, config.train.prompts_per_epoch * config.train.group_size)
    with memory_errors(to_train, config, begun=False):
        policy, conditions = _policy(config, device, samples)
        random = conditions is not None
        if conditions is None:
            conditions = _embedded(policy, config, samples)
            policy.free_text()
        policy.autocast = config.train.autocast
        if is_quantized(config.model):
            quantize(policy)
        if config.lora is None:
            parameters = list(policy.transformer.requires_grad_(True).parameters())
        else:
            targets = config.lora.targets or policy.targets
            parameters = list(attach_policy(policy.transformer, config.lora, targets, seed=0).values())
        policy.transformer.to(policy.device)
        optimiser = torch.optim.AdamW(parameters, lr=config.train.learning_rate)
        x = policy.initial_noise(samples, torch.Generator().manual_seed(0)).to(policy.device)
        sigma = torch.full((samples,), 0.5, device=policy.device)

        def velocity() -> torch.Tensor:
            return policy.velocity(x, sigma, conditions, config.model.guidance_scale)

        def update() -> None:
            velocity().square().mean().backward()
            optimiser.step()
            optimiser.zero_grad()

        if policy.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        with torch.no_grad():
            forward = _timed(velocity, policy.device)
        seconds = _timed(update, policy.device)
        peak = _peak(policy.device)
    hours, (looked, learned) = {}, reduce_passes(config)
    for method in plan.methods if plan else ():
        passes = passes_of(config, method)
        spent = (passes.draw + passes.look) * forward + passes.train * seconds
        spent += method.reduce_samples * (looked * forward + learned * seconds)
        hours[method.name] = spent / samples / 3600
    return Peak(device, peak / 1e9, seconds, samples, random, forward, hours)


def _embedded(policy: Any, config: RunConfig, samples: int) -> Any:
    """The conditions of short prompts, with black input pictures where the model takes one."""
    guided = config.model.guidance_scale > 1
    if family_of(config.model.path).picture == "none":
        return policy.encode(["a"] * samples, guided)
    with blank_picture(policy.shape.height, policy.shape.width) as image:
        return policy.encode([Pictured("a", image)] * samples, guided)


def _timed(step: Callable[[], object], device: torch.device) -> float:
    """Seconds of a step: of its second time, where the first was quick."""
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    first = time.perf_counter() - start
    if first > QUICK:
        return first
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _measure_answers(config: RunConfig, device: str, plan: Plan | None) -> Peak:
    """`measure_update` of a language model."""
    from .measured_answers import time_answers

    if check_model(config.model.path) is None:
        raise ParetuneError(
            f"plan --measure needs a language model that is on this machine: {config.model.path} is on the "
            "hub; give its folder, or leave --measure out for the estimate"
        )
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    with memory_errors(to_train, config, begun=False):
        samples, seconds = time_answers(config, device)
    each = seconds / samples / 3600
    # A sample that Reduce draws, to measure it or to learn from it, counts as one of training.
    drawn = {m.name: m.samples + m.reduce_samples for m in plan.methods} if plan else {}
    hours = {name: count * each for name, count in drawn.items()} if plan else None
    return Peak(device, _peak(torch.device(device)) / 1e9, seconds, samples, False, 0.0, hours)


def _policy(config: RunConfig, device: str, samples: int) -> tuple[Any, Any]:
    """A policy, and conditions for it where it has random weights and no text encoders."""
    if check_model(config.model.path) is not None:
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
