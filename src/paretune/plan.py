"""RunConfig -> Plan: every expert, round, seed and folder of a run, decided before anything runs. Pure.

Folders are relative to the run's own. Seeds are derived from names, so that adding a reward or a
method changes no other expert.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

from .config import RunConfig


@dataclass(frozen=True)
class ExpertTask:
    """Train one expert: `epochs` epochs of one reward, on the model that `parents` make of the base.

    folder: where the expert is left. parents: the merged adapters folded into the base, in order.
    continues: an expert whose training this one goes on with (a longer run of the same seed), or None.
    """

    folder: str
    reward: str
    round: int
    seed: int
    epochs: int
    parents: tuple[str, ...]
    continues: str | None = None


@dataclass(frozen=True)
class Round:
    """One Map and one Reduce. merged: the folder of the average."""

    number: int
    tasks: tuple[ExpertTask, ...]
    merged: str


@dataclass(frozen=True)
class MethodPlan:
    """A method is its rounds. samples: pictures drawn in training, all rewards together."""

    name: str
    rounds: tuple[Round, ...]
    samples: int
    updates: int


@dataclass(frozen=True)
class Plan:
    """All methods of a run."""

    methods: tuple[MethodPlan, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data, as plan.json holds it."""
        return asdict(self)


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from names and numbers, the same on every machine."""
    text = "/".join(str(p) for p in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def expert_epochs(config: RunConfig, reward: str) -> int:
    """Epochs of one expert in one round."""
    return config.rewards[reward].epochs or config.train.epochs


def method_plan(config: RunConfig, name: str, rounds: tuple[Round, ...]) -> MethodPlan:
    """Count what the rounds cost."""
    train = config.train
    epochs = sum(task.epochs for r in rounds for task in r.tasks)
    per_epoch = train.prompts_per_epoch * train.group_size
    return MethodPlan(name, rounds, epochs * per_epoch, epochs * train.updates_per_epoch)
