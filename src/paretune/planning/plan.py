"""The plan of a run: every expert, round, seed and folder, decided before anything runs. Pure.

Folders are relative to the folder of the run. Seeds are derived from names, so that adding a reward or a
method changes no other expert.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..config import RunConfig

LATER = ("lean", "others", "width")  # fields of a task that older runs do not have


@dataclass(frozen=True)
class ExpertTask:
    """Train one expert: `epochs` epochs, on the model that `parents` make of the base.

    folder: where the expert is written. rewards: one reward, or several for a joint method, whose prompt sets
    are mixed. parents: the merged adapters that are folded into the base, in order. continues: the folder of
    the expert whose training this one continues, or None. `epochs` includes its epochs. falls: the epochs
    [first, end) over which the learning rate falls, or None for all epochs of this expert. They are
        numbered as this expert's; they begin before 0 or end after `epochs` where other rounds take part.
    scoring: "own" scores every prompt with the reward of its set, "all" with the weighted sum of all rewards
    that apply to it, "lean" with the reward of its set and the share `lean` of those of `others` that apply,
    "drawn" with all that apply, by weights that are drawn for each prompt and given to the model.
    objective: replaces the recipe's objective. lean, others: see `scoring`; `others` give no prompts. width:
    how many times `train.prompts_per_epoch` prompts an epoch draws.
    """

    folder: str
    rewards: tuple[str, ...]
    round: int
    seed: int
    epochs: int
    falls: tuple[int, int] | None = None
    parents: tuple[str, ...] = ()
    continues: str | None = None
    scoring: Literal["own", "all", "lean", "drawn"] = "own"
    objective: str | None = None
    lean: float = 0.0
    others: tuple[str, ...] = ()
    width: int = 1

    @property
    def rate_epochs(self) -> tuple[int, int]:
        """The epochs [first, end) over which the learning rate falls: `falls`, or all of the expert's."""
        return self.falls or (0, self.epochs)

    @property
    def reward(self) -> str:
        """The name of the expert: that of its reward, or "joint"."""
        return self.rewards[0] if len(self.rewards) == 1 else "joint"

    @property
    def scored_by(self) -> tuple[str, ...]:
        """The rewards that may score a sample."""
        return (*self.rewards, *self.others) if self.scoring != "own" else self.rewards[:1]

    def inputs(self) -> dict[str, Any]:
        """What a digest of the expert's inputs holds of the task.

        A field that came later is left out where it has its default, so that older experts keep their digest.
        """
        told = asdict(self)
        later = {name: type(self).__dataclass_fields__[name].default for name in LATER}
        return {name: value for name, value in told.items() if name not in later or value != later[name]}


# Methods that choose the objective of their experts themselves.
METHOD_OBJECTIVES = {"selma": "sft"}
# Methods whose experts train on several rewards at once.
JOINT_METHODS = frozenset({"morl_d", "morl_dr", "conditioned"})


@dataclass(frozen=True)
class TokenTask:
    """Train one reward token. teacher: the adapters whose sum over the base is the expert it learns from."""

    folder: str
    reward: str
    seed: int
    teacher: tuple[str, ...]


@dataclass(frozen=True)
class Round:
    """One Map and one Reduce.

    merged: the folder of the average. weights: of the average, one for each task. reduce: the reducer. step:
    how much of the average is folded, or the steps to choose from. momentum: see `ops.outer`. rescales:
    whether a step makes good what the mask of `dare-q` left out (its search of q). Baselines
    average exactly and fold the average, whatever the recipe says, because they are defined that way.
    """

    number: int
    tasks: tuple[ExpertTask, ...]
    merged: str
    weights: tuple[float, ...]
    reduce: str = "exact"
    step: float | tuple[float, ...] = 1.0
    momentum: float = 0.0
    rescales: bool = False

    @property
    def has_outer_step(self) -> bool:
        """Whether something else than the average itself is folded."""
        return self.step != 1 or self.momentum > 0

    def beside(self, name: str) -> str:
        """A folder of this round beside the average."""
        return f"{self.merged.rpartition('/')[0]}/{name}"


@dataclass(frozen=True)
class MethodPlan:
    """The rounds of one method. samples, updates, scores: its budget, for all rewards together.

    model: the folders of the adapters whose sum is the method's model. scores: how often a reward scores a
    sample, if every reward that may be asked applies to every prompt. reduce_samples: drawn beside training,
    to choose how experts are averaged, or to distil them.
    """

    name: str
    rounds: tuple[Round, ...]
    model: tuple[str, ...]
    samples: int
    updates: int
    scores: int = 0
    reduce_samples: int = 0

    @property
    def weighted(self) -> str:
        """The folder of the embedding of weights, for a method whose model is given weights; otherwise ""."""
        task = self.rounds[-1].tasks[0]
        return task.folder if task.scoring == "drawn" else ""


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
