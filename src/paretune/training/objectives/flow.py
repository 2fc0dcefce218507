"""Objectives of flow models: where the samples of an epoch come from, and their loss at each slot.

The trainer (`training.expert`) samples, optimises and writes checkpoints. It asks the objective for
everything that differs between objectives. An objective whose samples come from elsewhere (pairs in a file,
an expert, a teacher) overrides `captions` and `collect`. Shapes: P prompts drawn in an epoch, G samples of
each; B samples kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch

from ...config import ModelConfig, ObjectiveConfig, RunConfig, TrainConfig
from ...models.flow import Conditions, FlowPolicy, Sampling, Trajectories
from ...models.weighting import with_weights
from ...ops.advantages import best_and_worst, informative_groups
from ...planning.plan import ExpertTask
from ...types import Samples
from ..checkpoint import TrainState
from ..mixture import Mixture, Scores
from ..together.crew import Crew
from .base import Objective, Options

TRAINER = "paretune.training.expert:ExpertTrainer"
T = TypeVar("T", bound=Options)
Weights = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Batch:
    """The B samples that an epoch trains on, with their advantages [B] and the conditions of their prompts.

    group: [B], the number of each sample's group, from 0. An update never divides a group.
    """

    trajectories: Trajectories
    advantages: torch.Tensor
    conditions: Conditions
    group: torch.Tensor


@dataclass(frozen=True)
class Rollouts:
    """The samples of an epoch.

    scores: of P groups of G samples. index: [P], the prompts of the groups. noise: [P * G, ..], what the
    samples were drawn from.
    """

    trajectories: Trajectories
    scores: Scores
    index: torch.Tensor
    noise: torch.Tensor
    seconds_sample: float
    seconds_score: float


@dataclass(frozen=True)
class Collected:
    """batch: what to train on, None if there is nothing to learn. facts: for the epoch's metrics."""

    batch: Batch | None
    facts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Loss:
    """total: the loss to minimise. kl: its anchor term, unweighted. ratio: importance ratio, a mean.

    facts: other means over the samples, for the epoch's row of metrics.
    """

    total: torch.Tensor
    kl: float = 0.0
    ratio: float = 1.0
    facts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Setting:
    """What an objective works with.

    settings: the keys that all objectives share. kl: the weight of the anchor. sampling_weights: a context in
    which the policy has the copy of the adapter that draws samples. reference_weights: a context in which the
    policy is the anchor, which is the model that the round starts with, the original base, or the average of
    the expert itself. scaled: the scaled loss, whose gradient is taken; see `loss_scale`.
    """

    policy: FlowPolicy
    model: ModelConfig
    train: TrainConfig
    settings: ObjectiveConfig
    kl: float
    sampling_weights: Weights
    reference_weights: Weights
    scaled: Callable[[torch.Tensor], torch.Tensor] = lambda loss: loss


class Learner(Protocol):
    """The parts of the trainer that `collect` may use.

    folder: of the expert. conditions: those of `captions`, in the same order. crew: the processes that train
    it; all call `collect`, and must come to the same samples.
    """

    config: RunConfig
    task: ExpertTask
    folder: Path
    mixture: Mixture
    policy: FlowPolicy
    conditions: Conditions
    state: TrainState
    crew: Crew

    def rollout(self, generator: torch.Generator) -> Rollouts:
        """Draw `prompts_per_epoch` groups with the objective's `sampling`, and score them."""
        ...

    def show(self, samples: Samples, group: int) -> None:
        """Keep a few samples for the trackers. group: samples of a prompt, which follow each other."""
        ...


def diversity(clean: torch.Tensor, groups: int) -> float:
    """How much the samples of a group differ: the standard deviation of their latents, a mean over all.

    clean: [P * G, ..], prompt-major. groups: P.
    """
    values = clean.detach().float().reshape(groups, -1, *clean.shape[1:])
    return float(values.std(dim=1, unbiased=False).mean())


class FlowObjective(Objective, Generic[T]):
    """An objective of pictures and clips.

    slots: the number of noise levels, or steps, at which a sample is trained. sampling_decay: the copy of the
    adapter that draws samples is a moving average of the adapter with this decay; 0: it is the adapter after
    each epoch; None: it never changes. shared_noise: whether a group always begins at one initial noise.
    divides: whether several processes can train it together: its samples are the trainer's rollouts, and its
    loss is a mean over groups. None: it can if it has no `collect`, `rollouts` and `accumulate` of its own.
    """

    trainers: ClassVar[Mapping[str, str]] = {"pictures": TRAINER, "clips": TRAINER}
    overlaps: ClassVar[bool] = True
    slots: int = 1
    sampling_decay: float | None = 0.0
    shared_noise: bool = False
    divides: ClassVar[bool | None] = None
    batch: Batch

    def __init__(self, setting: Setting, options: T) -> None:
        self.setting, self.options, self.policy = setting, options, setting.policy
        self.sampling = self.make_sampling()

    # ------------------------------------------------------------ where samples come from

    @classmethod
    def captions(cls, options: Any, mixture: Mixture) -> Sequence[str]:
        """The texts that are embedded before training begins: by default the prompts, in order."""
        return [p.text for p in mixture.prompts]

    @classmethod
    def divisible(cls, options: Any) -> bool:
        """See `Objective.divisible`, and `divides`."""
        own = (cls.collect, cls.rollouts, cls.accumulate)
        common = own == (FlowObjective.collect, FlowObjective.rollouts, FlowObjective.accumulate)
        return common if cls.divides is None else cls.divides

    @classmethod
    def takes_weights(cls) -> bool:
        """See `Objective.takes_weights`."""
        own = (cls.collect, cls.rollouts, cls.advantages)
        return own == (FlowObjective.collect, FlowObjective.rollouts, FlowObjective.advantages)

    def make_sampling(self) -> Sampling:
        """How rollouts are drawn: by default with the model's steps and without added noise."""
        model = self.setting.model
        return Sampling(model.steps, model.guidance_scale, batch=self.setting.train.micro_batch)

    def collect(self, learner: Learner, generator: torch.Generator) -> Collected:
        """The samples of an epoch: by default rollouts, scored by the mixture's rewards."""
        rollouts = self.rollouts(learner, generator)
        advantages = self.advantages(learner.mixture, rollouts.scores)
        facts = {
            "reward": rollouts.scores.mean(), "reward_std": rollouts.scores.spread(),
            "diversity": diversity(rollouts.trajectories.clean, len(rollouts.index)),
            "seconds_sample": rollouts.seconds_sample, "seconds_score": rollouts.seconds_score,
        }  # fmt: skip
        kept = informative_groups(advantages)
        if len(kept) == 0:  # within every group all scores are equal
            return Collected(None, facts)
        rows = torch.zeros_like(advantages, dtype=torch.bool)
        rows[kept] = self.chosen(advantages)[kept]
        samples, group = rows.flatten().nonzero().flatten(), advantages.shape[1]
        weights = rollouts.scores.weights
        conditions = with_weights(
            learner.conditions.select(rollouts.index.repeat_interleave(group)[samples]),
            None if weights is None else weights.repeat_interleave(group, dim=0)[samples],
        )
        groups = torch.unique(samples // group, return_inverse=True)[1]
        trajectories = rollouts.trajectories.select(samples)
        return Collected(Batch(trajectories, advantages.flatten()[samples], conditions, groups), facts)

    def rollouts(self, learner: Learner, generator: torch.Generator) -> Rollouts:
        """Draw and score the groups of an epoch."""
        return learner.rollout(generator)

    def advantages(self, mixture: Mixture, scores: Scores) -> torch.Tensor:
        """The advantages of the samples, [P, G]. A group whose advantages are all zero is not trained on."""
        return mixture.advantages(scores, self.setting.settings)

    def chosen(self, advantages: torch.Tensor) -> torch.Tensor:
        """Which samples are trained on, bool [P, G]: all, or as many of each group as `train.keep` says."""
        keep = self.setting.train.keep
        return torch.ones_like(advantages, dtype=torch.bool) if keep is None \
            else best_and_worst(advantages, keep)  # fmt: skip

    # ------------------------------------------------------------ the loss

    def begin_epoch(self, batch: Batch, generator: torch.Generator) -> None:
        """Take the samples of an epoch, and draw the noise that training adds to them."""
        self.batch = batch

    def loss(self, index: torch.Tensor, slot: int) -> Loss:
        """The mean loss of the samples in `index` at one slot."""
        raise NotImplementedError

    def accumulate(self, part: torch.Tensor) -> dict[str, float]:
        """Accumulate the gradient of one update, of the mean loss of the samples in `part`.

        By default this is done slot by slot and micro-batch by micro-batch. Returns means for the metrics.
        It draws no random numbers, because it is done again where a scaled gradient overflows.
        """
        sums: dict[str, float] = {"loss": 0.0, "kl": 0.0, "ratio": 0.0}
        for slot in range(self.slots):
            for index in part.split(self.setting.train.micro_batch):
                share = len(index) / (len(part) * self.slots)
                loss = self.loss(index, slot)
                self.setting.scaled(loss.total * share).backward()
                facts = {"loss": float(loss.total.detach()), "kl": loss.kl, "ratio": loss.ratio, **loss.facts}
                for key, value in facts.items():
                    sums[key] = sums.get(key, 0.0) + value * share
        return sums

    def begin_update(self, part: torch.Tensor, crew: Crew) -> None:
        """The trainer calls this before every optimiser step, in all processes, with all its samples."""

    def end_update(self) -> None:
        """The trainer calls this after every optimiser step."""

    def end_epoch(self) -> dict[str, Any]:
        """Facts for the epoch's row of metrics that are not means over its updates: by default none."""
        return {}

    # ------------------------------------------------------------ velocities

    def velocity(self, x: torch.Tensor, sigma: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        """The velocity of the adapter in training, with a gradient."""
        return self.policy.velocity(x, sigma, conditions, self.sampling.guidance)

    @torch.no_grad()
    def velocity_under(
        self, weights: Weights, x: torch.Tensor, sigma: torch.Tensor, conditions: Conditions
    ) -> torch.Tensor:
        """The velocity under other weights of `setting`, without a gradient."""
        with weights():
            return self.velocity(x, sigma, conditions)
