"""`paretune plan --gpus N`: how a recipe would use N GPUs: who trains where, hours, memory, and what is sent.

The arithmetic is that of `training.together`: groups are never divided, so d devices take ceil(P / d) groups
each of P, and an update of G groups takes ceil(G / d). Language models' devices get equal shares, or none.
Hours are the estimate's device-hours by that rule; exchanges and rewards are not in them. An average over a
ring sends 2 (d - 1) / d of the gradient from each device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from ..config import RunConfig
from ..models.adapter_sizes import adapter_numbers
from ..models.facts import read_backbone
from ..models.quantize import is_quantized
from ..samples.media import Work, medium_of
from ..training.together.checks import check_together
from ..types import ParetuneError
from .estimate import Estimate, estimate, passes_of
from .plan import MethodPlan, Plan, Round

FLOAT = 4  # bytes of a number of an adapter, a gradient or a latent
COPIES = 6  # of an adapter's numbers in training: itself, gradient, two moments, the sampling and mean copies


@dataclass(frozen=True)
class Scale:
    """How a run uses some GPUs.

    gpus: all. each: devices of one expert. side_by_side: experts at a time. busy: GPUs in use. hours: wall
    hours of each method. memory_gb: of a device. adapter_mb: what an expert sends to Reduce and gets back.
    round_mb: all that Reduce receives and sends of a round. update_mb: what a device sends to average one
    update's gradient. gather_gb: what a device receives of the others' parts of the base for one pass.
    """

    gpus: int
    each: int
    side_by_side: int
    busy: int
    hours: dict[str, float]
    memory_gb: float
    adapter_mb: float
    round_mb: float
    update_mb: float
    gather_gb: float

    def rows(self) -> dict[str, str]:
        """What is printed of it."""
        rows = {
            "experts": f"{self.side_by_side} at a time on {self.each} each, {self.busy} of {self.gpus} busy",
            "memory": f"about {self.memory_gb:.1f} GB on each",
            "time": ", ".join(f"{name} {short(hours)} h" for name, hours in self.hours.items()),
            "network a round": f"{self.round_mb:,.0f} MB in all: every expert's {self.adapter_mb:,.0f} MB to "
            "Reduce, the average back to every expert",
        }
        if self.each > 1:
            rows["network an update"] = f"{self.update_mb:,.0f} MB from each device of an expert"
        if self.gather_gb:
            rows["network a pass"] = f"{self.gather_gb:.1f} GB of the base to each device, block by block"
        return rows


def short(hours: float) -> str:
    """A number of hours, with a digit behind the point where there are few."""
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.1f}"


def scale(config: RunConfig, plan: Plan, costs: Estimate, gpus: int) -> Scale:
    """How a recipe uses `gpus` GPUs, with its `executor.devices_per_expert` or, if that is 1, a choice.

    Raises ParetuneError where the model's sizes are not known, or a recipe asks for more devices.
    """
    each = config.executor.devices_per_expert
    if each > gpus:
        raise ParetuneError(f"--gpus {gpus}: an expert takes {each} (executor.devices_per_expert)")
    known = _numbers(config, costs)
    if known is None:
        raise ParetuneError(
            f"plan --gpus knows the sizes of models in a folder or as published; {config.model.path} is none "
            "of them"
        )
    rounds = [r for method in plan.methods for r in method.rounds]
    experts = max(len(r.tasks) for r in rounds)
    if each == 1:
        each = usable(config, gpus // experts)
    side_by_side = min(experts, gpus // each)
    size, held = FLOAT * known.adapter, estimate(_on(config, each), plan, "cuda").memory_gb or 0.0
    base = known.divisible * (1 if is_quantized(config.model) else config.model.bytes_each)
    return Scale(
        gpus, each, side_by_side, side_by_side * each,
        {m.name: _wall(config, m, costs, each, gpus) for m in plan.methods},
        held + known.copies * size / 1e9, size / 1e6, 2 * experts * size / 1e6,
        2 * (each - 1) / each * size / 1e6,
        (each - 1) / each * base / 1e9 if config.executor.shard == "full" else 0.0,
    )  # fmt: skip


class _Numbers(NamedTuple):
    """adapter: numbers that an expert sends. copies: of them, beside the estimate. divisible: of the base."""

    adapter: int
    copies: int
    divisible: float


def _numbers(config: RunConfig, costs: Estimate) -> _Numbers | None:
    """None where the model's sizes are not known."""
    if costs.parameters is None or costs.memory_gb is None:
        return None
    own = medium_of(config.model).cost(config, Work())
    if own is not None:  # its estimate has the adapter
        return _Numbers(own.adapter, 0, own.in_blocks) if own.adapter else None
    numbers = adapter_numbers(config)
    if numbers is None or read_backbone(config.model) is None:
        return None
    return _Numbers(numbers, 0 if config.lora is None else COPIES, costs.parameters)


def _on(config: RunConfig, each: int) -> RunConfig:
    """The recipe with `each` devices an expert."""
    executor = config.executor.model_copy(update={"devices_per_expert": each})
    return config.model_copy(update={"executor": executor})


def usable(config: RunConfig, most: int) -> int:
    """The fewest devices an expert that are as fast as `most`: groups are not divided."""
    fit = [each for each in range(1, max(most, 1) + 1) if each == 1 or _fits(config, each)]
    return min(fit, key=lambda each: (sum(_slowness(config, each, 1)), each))


def _fits(config: RunConfig, each: int) -> bool:
    try:
        check_together(_on(config, each))
    except ParetuneError:
        return False
    return True


def _slowness(config: RunConfig, each: int, width: int) -> tuple[float, float]:
    """The time of sampling and of updating on `each` devices, as shares of those on one."""
    if medium_of(config.model).name == "texts":
        return 1 / each, 1 / each
    prompts = config.train.prompts_per_epoch * width
    groups = math.ceil(prompts / config.train.updates_per_epoch)
    return math.ceil(prompts / each) / prompts, math.ceil(groups / each) / groups


def _wall(config: RunConfig, method: MethodPlan, costs: Estimate, each: int, gpus: int) -> float:
    """Wall hours of a method, of its device-hours on one device an expert. One device alone does Reduce."""
    alone = costs.alone.get(method.name, 0.0)
    hours = costs.hours.get(method.name, 0.0) - alone
    passes = passes_of(config, method)
    draw, update = passes.draw, 3 * passes.train + passes.look
    share = draw / (draw + update) if draw + update else 0.0
    tasks = sum(len(r.tasks) for r in method.rounds)

    def of_round(round_: Round) -> float:
        sampling, updating = _slowness(config, each, max(t.width for t in round_.tasks))
        waves = math.ceil(len(round_.tasks) / (gpus // each))
        return waves * hours / tasks * (share * sampling + (1 - share) * updating)

    return alone + sum(of_round(round_) for round_ in method.rounds)
