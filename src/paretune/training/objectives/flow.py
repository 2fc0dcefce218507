"""What an objective of flow models is: where an epoch's samples come from, and their loss at a slot.

The trainer (`training.expert`) samples, optimises and keeps checkpoints; all that differs from one objective
to another is asked here. Whoever brings samples from elsewhere (pairs of a file, an expert, a teacher)
overrides `captions` and `collect`. Shapes: P prompts drawn in an epoch, G samples of each; B samples kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch

from ...config import ModelConfig, ObjectiveConfig, RunConfig, TrainConfig
from ...models.flow import Conditions, FlowPolicy, Sampling, Trajectories
from ...ops.advantages import best_and_worst, informative_groups
from ...planning.plan import ExpertTask
from ..checkpoint import TrainState
from ..mixture import Mixture, Scores
from .base import Objective, Options

TRAINER = "paretune.training.expert:ExpertTrainer"
T = TypeVar("T", bound=Options)
Weights = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Batch:
    """The samples that an epoch trains on. trajectories: B of them; advantages [B]; conditions of B prompts.

    group: [B], which samples belong together, numbered from 0: an update never tears a group apart.
    """

    trajectories: Trajectories
    advantages: torch.Tensor
    conditions: Conditions
    group: torch.Tensor


@dataclass(frozen=True)
class Rollouts:
    """An epoch's samples. scores: raw, of P groups of G; index: [P] into the prompts."""

    trajectories: Trajectories
    scores: Scores
    index: torch.Tensor
    seconds_sample: float
    seconds_score: float


@dataclass(frozen=True)
class Collected:
    """batch: what to train on, None where nothing is to be learned. facts: for the epoch's metrics."""

    batch: Batch | None
    facts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Loss:
    """total: to minimise. kl: its unweighted anchor term. ratio: mean importance ratio (1 on policy).

    facts: other means over the samples, for the epoch's row of metrics.
    """

    total: torch.Tensor
    kl: float = 0.0
    ratio: float = 1.0
    facts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Setting:
    """What an objective works with. settings: the keys that all objectives share; kl: the anchor's weight.

    sampling_weights: for the length of a block, the copy of the adapter that samples. reference_weights: the
    anchor, which is the round's own start or the original base.
    """

    policy: FlowPolicy
    model: ModelConfig
    train: TrainConfig
    settings: ObjectiveConfig
    kl: float
    sampling_weights: Weights
    reference_weights: Weights


class Learner(Protocol):
    """What `collect` may use of the trainer. conditions: of `captions`, in their order."""

    config: RunConfig
    task: ExpertTask
    mixture: Mixture
    policy: FlowPolicy
    conditions: Conditions
    state: TrainState

    def rollout(self, generator: torch.Generator) -> Rollouts:
        """Draw `prompts_per_epoch` groups by the objective's `sampling`, and score them."""
        ...


class FlowObjective(Objective, Generic[T]):
    """An objective of pictures and clips. slots: noise levels, or steps, at which a sample is trained.

    sampling_decay: how much of the copy that samples stays after an epoch, 0 for none; None: it never moves.
    """

    trainers: ClassVar[Mapping[str, str]] = {"pictures": TRAINER, "clips": TRAINER}
    slots: int = 1
    sampling_decay: float | None = 0.0
    batch: Batch

    def __init__(self, setting: Setting, options: T) -> None:
        self.setting, self.options, self.policy = setting, options, setting.policy
        self.sampling = self.make_sampling()

    # ------------------------------------------------------------ where samples come from

    @classmethod
    def captions(cls, options: Any, mixture: Mixture) -> Sequence[str]:
        """The texts that are embedded before training begins; by default those of the prompts, in order."""
        return [p.text for p in mixture.prompts]

    def make_sampling(self) -> Sampling:
        """How rollouts are drawn; by default the model's steps without any noise added."""
        model = self.setting.model
        return Sampling(model.steps, model.guidance_scale, batch=self.setting.train.micro_batch)

    def collect(self, learner: Learner, generator: torch.Generator) -> Collected:
        """The samples of an epoch; by default rollouts, scored by the mixture's rewards."""
        rollouts = learner.rollout(generator)
        advantages = self.advantages(learner.mixture, rollouts.scores)
        facts = {
            "reward": rollouts.scores.mean(), "reward_std": rollouts.scores.spread(),
            "seconds_sample": rollouts.seconds_sample, "seconds_score": rollouts.seconds_score,
        }  # fmt: skip
        kept = informative_groups(advantages)
        if len(kept) == 0:  # every group agrees with itself
            return Collected(None, facts)
        rows = torch.zeros_like(advantages, dtype=torch.bool)
        rows[kept] = self.chosen(advantages)[kept]
        samples, group = rows.flatten().nonzero().flatten(), advantages.shape[1]
        conditions = learner.conditions.select(rollouts.index.repeat_interleave(group)[samples])
        groups = torch.unique(samples // group, return_inverse=True)[1]
        trajectories = rollouts.trajectories.select(samples)
        return Collected(Batch(trajectories, advantages.flatten()[samples], conditions, groups), facts)

    def advantages(self, mixture: Mixture, scores: Scores) -> torch.Tensor:
        """What the scores say of each sample, [P, G]; a group of zeros is not trained on."""
        return mixture.advantages(scores, self.setting.settings)

    def chosen(self, advantages: torch.Tensor) -> torch.Tensor:
        """Which samples of the groups are trained on, bool [P, G]: all, or what `train.keep` says."""
        keep = self.setting.train.keep
        return torch.ones_like(advantages, dtype=torch.bool) if keep is None \
            else best_and_worst(advantages, keep)  # fmt: skip

    # ------------------------------------------------------------ the loss

    def begin_epoch(self, batch: Batch, generator: torch.Generator) -> None:
        """Take an epoch's samples; draw what training adds to them."""
        self.batch = batch

    def loss(self, index: torch.Tensor, slot: int) -> Loss:
        """The loss of the samples in `index` at one slot."""
        raise NotImplementedError

    def accumulate(self, part: torch.Tensor) -> dict[str, float]:
        """Add the gradient of an update, the mean loss of the samples in `part`; returns its means.

        By default slot by slot and micro-batch by micro-batch.
        """
        sums: dict[str, float] = {"loss": 0.0, "kl": 0.0, "ratio": 0.0}
        for slot in range(self.slots):
            for index in part.split(self.setting.train.micro_batch):
                share = len(index) / (len(part) * self.slots)
                loss = self.loss(index, slot)
                (loss.total * share).backward()
                facts = {"loss": float(loss.total.detach()), "kl": loss.kl, "ratio": loss.ratio, **loss.facts}
                for key, value in facts.items():
                    sums[key] = sums.get(key, 0.0) + value * share
        return sums

    def end_update(self) -> None:
        """Called after every optimiser step."""

    # ------------------------------------------------------------ velocities

    def velocity(self, x: torch.Tensor, sigma: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        """Of the adapter in training, with its gradient."""
        return self.policy.velocity(x, sigma, conditions, self.sampling.guidance)

    @torch.no_grad()
    def velocity_under(
        self, weights: Weights, x: torch.Tensor, sigma: torch.Tensor, conditions: Conditions
    ) -> torch.Tensor:
        """Of other weights of `setting`, without a gradient."""
        with weights():
            return self.velocity(x, sigma, conditions)
