"""What a recipe will cost before it runs: samples, updates, memory and hours, by stated formulas.

Floating-point work of one transformer forward pass is taken as 2 x parameters x tokens a picture, a training
pass with adapters as 3 of them (forward, and the gradient of activations through frozen weights costs
about two more with checkpointing). Hours assume the given sustained TFLOP/s; they are an estimate, not a
measurement.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from ..config import RunConfig
from ..models.config_files import read_config
from ..models.detect import family_of, place_of
from ..models.facts import read_backbone, read_shape
from ..models.family import Family, transformers_of
from ..models.quantize import is_quantized
from ..models.sizes import parameters_in
from ..ops.distilling import DISTIL, Distilling
from ..samples.media import Cost, Work, medium_of
from ..training.objectives.settings import read_options as read_objective
from ..training.objectives.settings import settings_for
from ..training.objectives.table import find_objective
from .plan import JOINT_METHODS, METHOD_OBJECTIVES, MethodPlan, Plan

KEPT = 40  # values that training keeps of a token for each unit of a block, about
SMALL, SMALL_TEXT_TOKENS = 1e9, 16  # parameters of a transformer whose prompts are short
# Bytes of a process on a CPU that has loaded torch, transformers, peft and a trainer, before any weights.
PROCESS = {"cpu": 0.6e9, "cuda": 0.0}
SUSTAINED_TFLOPS = {"cuda": 300.0, "cpu": 0.05}  # an H100 in bfloat16 at about 30 %; one CPU core


@dataclass(frozen=True)
class Estimate:
    """parameters: of the transformer, or None when unknown. memory_gb: of one expert.

    hours: device-hours of every method, Reduce among them. sampling: how samples are drawn, in words, where
    the settings of flow models do not tell. alone: of the hours, those of Reduce, which one device does
    between rounds.
    """

    parameters: float | None
    tokens: int | None
    memory_gb: float | None
    hours: dict[str, float]
    sampling: str = ""
    alone: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Sizes:
    """Parameters of a model's parts.

    transformer: of the one that a forward pass runs. held: of all transformers, of which a model for high
    and for low noise has two.
    """

    transformer: float
    held: float
    vae: float
    text: float


def estimate(config: RunConfig, plan: Plan, device: str) -> Estimate:
    """Memory of one expert and device-hours of each method."""
    objective = find_objective(config.objective.name)
    work = Work(objective.draws, device, objective.whole_logits, objective.given_answers)
    own = medium_of(config.model).cost(config, work)
    if own is not None:
        return _estimate(config, plan, device, own)
    family = family_of(config.model.path)
    facts, backbone = _model_facts(config, family), read_backbone(config.model)
    if facts is None or backbone is None:
        return Estimate(None, None, None, {})
    sizes, tokens = facts
    bytes_each = config.model.bytes_each
    activations = config.train.micro_batch * tokens * _kept(config, *backbone) * bytes_each
    # Text encoders are gone when training begins; the autoencoder, in float32, visits between epochs.
    beside = max(sizes.text * bytes_each, sizes.vae * 4, activations)
    forward = 2 * sizes.transformer * tokens * family.passes(config.model)
    rate = SUSTAINED_TFLOPS[device] * 1e12
    hours, alone = dict[str, float](), dict[str, float]()
    looked, learned = reduce_passes(config)
    for method in plan.methods:
        passes = passes_of(config, method)
        alone[method.name] = method.reduce_samples * (looked + 3 * learned) * forward / rate / 3600
        trained = (passes.draw + 3 * passes.train + passes.look) * forward / rate / 3600
        hours[method.name] = trained + alone[method.name]
    hours |= _token_hours(config, config.evaluate.steps, 1, forward / rate)
    held = held_bytes(config, sizes.held, backbone[0])
    return Estimate(sizes.held, tokens, (held + beside + PROCESS[device]) / 1e9, hours, alone=alone)


def held_bytes(config: RunConfig, parameters: float, blocks: int) -> float:
    """Bytes of the transformer on one device, with what training holds of its weights beside them.

    Where all weights are trained a device holds for each the gradient, two moments, and the copies that draw
    samples, are averaged, and are the anchor. Adapters are small and not counted.
    """
    base = parameters * (1 if is_quantized(config.model) else config.model.bytes_each)
    if config.executor.shard == "full":
        return _divided(config, base, blocks)
    if config.lora is not None:
        return base
    kls = [config.objective.kl if r.kl is None else r.kl for r in config.rewards.values()]
    settings = config.objective
    looks = max(kls) > 0 or find_objective(settings.name).anchored(read_objective(settings))
    copies = 4 + (config.train.ema_decay > 0) + (looks and config.objective.anchor != "average")
    return base * (1 + copies)


def _divided(config: RunConfig, size: float, blocks: int) -> float:
    """What a device holds of divided blocks: its part, and two gathered blocks, the one that computes and the
    next.
    """
    return size / config.executor.devices_per_expert + 2 * size / blocks


class Passes(NamedTuple):
    """Passes of a sample through the model: to draw, to train (with a backward pass), and of the anchor."""

    draw: float
    train: float
    look: float


def passes_of(config: RunConfig, method: MethodPlan) -> Passes:
    """All passes of a method. Its samples are shared evenly among its experts."""
    named = METHOD_OBJECTIVES.get(method.name)
    if named is not None or method.name in JOINT_METHODS:
        each = [_of_sample(config, named, given=False)]
    else:
        each = [_of_sample(config, r.objective, r.pairs is not None) for r in config.rewards.values()]
    share = method.samples / len(each)
    return Passes(*(share * sum(kind) for kind in zip(*each, strict=True)))


def _of_sample(config: RunConfig, objective: str | None, given: bool) -> Passes:
    """Passes of one sample, or of one list of a file of preferences.

    objective: None for the recipe's. given: whether samples come from a file.
    """
    settings = settings_for(config.objective, objective)
    kind, options = find_objective(settings.name), read_objective(settings)
    points = kind.trained_points(config, options) * (config.train.group_size if given else 1)
    anchored = settings.kl > 0 or kind.anchored(options)
    return Passes(0 if given else config.model.steps, points, points if anchored else 0)


def reduce_passes(config: RunConfig) -> tuple[float, float]:
    """Passes of a sample that Reduce draws: forward alone, and with a gradient.

    It is drawn to be measured; or for a student, which is compared with its expert on some of the states.
    """
    if config.reduce.method != DISTIL:
        return config.evaluate.steps, 0.0
    own = Distilling.of(config.reduce.options)
    states = min(own.times, config.model.steps)
    return config.model.steps + states * (1 + (own.anchor > 0)), states


def _kept(config: RunConfig, blocks: int, units: int) -> int:
    """Values kept of a token; with checkpointing the input of every block, and one block at a time."""
    return units * (blocks + KEPT if config.model.gradient_checkpointing else blocks * KEPT)


def _estimate(config: RunConfig, plan: Plan, device: str, cost: Cost) -> Estimate:
    """By the same formulas, of what the medium says a sample costs."""
    if cost.parameters is None:
        return Estimate(None, cost.tokens, None, {}, cost.description)
    bytes_each = config.model.bytes_each
    working = cost.working
    if working is None:  # a model whose sizes inside are not known
        working = config.train.micro_batch * cost.tokens * 2e5 * bytes_each
    memory = (_parameters_here(config, cost) + cost.others) * bytes_each + working + PROCESS[device]
    forward = 2 * cost.parameters * cost.tokens
    rate = SUSTAINED_TFLOPS[device] * 1e12
    looks = 4 * cost.train if config.reduce.method == DISTIL else 0.0  # student and expert on each sample
    one = forward / rate / 3600
    alone = {m.name: m.reduce_samples * (cost.draw + looks) * one for m in plan.methods}
    hours = {m.name: m.samples * (cost.draw + 3 * cost.train) * one + alone[m.name] for m in plan.methods}
    hours |= _token_hours(config, cost.draw, cost.train, forward / rate)
    return Estimate(cost.parameters, cost.tokens, memory / 1e9, hours, cost.description, alone)


def _parameters_here(config: RunConfig, cost: Cost) -> float:
    """Parameters that a device holds. What is beside the blocks of a divided base is whole on each."""
    assert cost.parameters is not None
    if config.executor.shard != "full" or not cost.blocks:
        return cost.parameters
    inside = min(cost.in_blocks, _divided(config, cost.in_blocks, cost.blocks))
    return cost.parameters - cost.in_blocks + inside


def _token_hours(config: RunConfig, draw: float, train: float, seconds: float) -> dict[str, float]:
    """Of all reward tokens at their full number of steps, beside what their experts cost.

    draw, train: forward passes to draw a sample, and to train on it; seconds: of one of them.
    """
    if config.tokens is None:
        return {}
    own = config.tokens.options
    whole = own.drawn(config.train.group_size)
    validations = -(-config.tokens.steps // own.every) + -(-own.reinforce // own.every)
    drawn = whole + own.validation * validations
    trained = config.tokens.steps * min(own.batch_size, own.samples) + whole - own.samples
    passes = 4 if config.tokens.loss == "velocity" else 3  # the teacher looks at the same points too
    return {"tokens": len(config.rewards) * (drawn * draw + trained * passes * train) * seconds / 3600}


def _model_facts(config: RunConfig, family: Family) -> tuple[Sizes, int] | None:
    """Parameters, and tokens of a sample with its text; None of a hub model that is not known."""
    folder, model = place_of(config.model.path), config.model
    shape, published = read_shape(model), family.published.get(model.path)
    encoders = family.encoders(model)
    if folder.is_dir():
        index = read_config(folder / "model_index.json")
        networks = transformers_of((*family.parts, *family.more_parts(index)))
        size = {part: parameters_in(folder / part) for part in (*networks, "vae", *encoders)}
    elif published is not None:
        networks = transformers_of(published.billions)
        size = {part: 1e9 * published.billions.get(part, 0.0) for part in (*networks, "vae", *encoders)}
    else:
        return None
    held = sum(size[part] for part in networks)
    sizes = Sizes(size["transformer"], held, size["vae"], sum(size[part] for part in encoders))
    text_tokens = SMALL_TEXT_TOKENS if sizes.transformer < SMALL else family.text_tokens(model)
    beside = text_tokens + family.picture_tokens(model)
    return None if shape is None else (sizes, shape.tokens + beside)
