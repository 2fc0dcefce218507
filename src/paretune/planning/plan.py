"""RunConfig -> Plan: every expert, round, seed and folder of a run, decided before anything runs. Pure.

Folders are relative to the run's own. Seeds are derived from names, so that adding a reward or a
method changes no other expert.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..config import RunConfig


@dataclass(frozen=True)
class ExpertTask:
    """Train one expert: `epochs` epochs, on the model that `parents` make of the base.

    folder: where the expert is left. rewards: one, or for a joint method several, whose prompt sets are
    mixed. parents: the merged adapters folded into the base, in order. continues: an expert whose
    training this one goes on with, its epochs counted in `epochs`, or None. falls: the epochs [first, end)
    over which the learning rate falls, counted as this expert's: before 0 and past `epochs` where other
    rounds have a part in it; None: all of its own. scoring: "own", every prompt by the reward of its own
    set, or "all", by the weighted sum of the rewards that apply to it. objective: instead of the recipe's.
    """

    folder: str
    rewards: tuple[str, ...]
    round: int
    seed: int
    epochs: int
    falls: tuple[int, int] | None = None
    parents: tuple[str, ...] = ()
    continues: str | None = None
    scoring: Literal["own", "all"] = "own"
    objective: str | None = None

    @property
    def schedule(self) -> tuple[int, int]:
        """`falls`, or the expert's own epochs."""
        return self.falls or (0, self.epochs)

    @property
    def reward(self) -> str:
        """What the expert is called after: its reward, or "joint"."""
        return self.rewards[0] if len(self.rewards) == 1 else "joint"


# Methods that choose the objective of their experts themselves.
METHOD_OBJECTIVES = {"selma": "sft"}
# Methods whose experts train on several rewards at once.
JOINT_METHODS = frozenset({"morl_d", "morl_dr"})


@dataclass(frozen=True)
class TokenTask:
    """Train one reward token. teacher: the adapters whose sum over the base is its expert."""

    folder: str
    reward: str
    seed: int
    teacher: tuple[str, ...]


@dataclass(frozen=True)
class Round:
    """One Map and one Reduce. merged: the folder of the average.

    weights: one a task, of the average. reduce: the reducer; baselines average exactly whatever the
    recipe says, for that is what they are.
    """

    number: int
    tasks: tuple[ExpertTask, ...]
    merged: str
    weights: tuple[float, ...]
    reduce: str = "exact"


@dataclass(frozen=True)
class MethodPlan:
    """A method is its rounds. samples: pictures drawn in training, all rewards together.

    model: the folders of the adapters whose sum is the method's model.
    """

    name: str
    rounds: tuple[Round, ...]
    model: tuple[str, ...]
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
