"""Tree GRPO: the samples of a group are the leaves of a tree over the stochastic window (Dynamic-TreeRPO).

Before the window all samples of a prompt are one state; at each of its d steps every state branches, by
default in two; after it the leaves are finished by the ODE. Siblings share the mean of their
step, in sampling and in training. Noise grows with the depth, the clip of a sample's ratio depends on its
advantage, and the best leaf pulls by flow matching (LayerTuning-RL). The paper, 2509.23352, comes without
code: the growth eta_k = eta (1 + growth k / d), the clip low + (high - low) sigmoid(slope A), and a pull that
only leaves above the epoch's mean score exert, are our reading of it.

Shapes: P prompts, G leaves of each; W = d steps.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator

from ...config import RunConfig
from ...limits import NonNegative, Positive, PositiveReal
from ...models.flow import Conditions, Sampling, Trajectories, stochastic_step
from ...ops import policy_losses as losses
from ...ops.advantages import informative_groups
from ...ops.flow_matching import noised
from ...ops.flow_sde import Step, euler_step
from ...types import ParetuneError
from .base import Options
from .flow import Batch, Collected, FlowObjective, Learner, Loss, Rollouts, Setting


class TreeGRPOOptions(Options):
    """Options of `tree_grpo`."""

    depth: Annotated[Positive, Field(le=8)] = Field(default=2, description="steps that branch")
    branches: Annotated[Positive, Field(ge=2, le=1000)] = Field(
        default=2, description="of each state; train.group_size is this to the power of depth"
    )
    first: Annotated[int, Field(ge=0, le=1000)] = Field(default=0, description="the first step that branches")
    sampler: Literal["sde", "cps", "dance"] = Field(default="sde", description="stochastic steps")
    noise_level: PositiveReal = Field(default=0.7, description="eta of the first branching")
    growth: NonNegative = Field(
        default=0.5, description="how much more noise there would be at full depth, as a share"
    )
    clip_low: PositiveReal = Field(default=1e-4, description="clip of the ratio of bad samples")
    clip_high: PositiveReal = Field(default=2e-4, description="clip of the ratio of good samples")
    slope: NonNegative = Field(
        default=1.0, description="how fast the clip rises with the advantage; 0: always half-way"
    )
    pull: NonNegative = Field(
        default=1e-3, description="weight of flow matching on the best leaf; the ratio's gradient is small "
        "beside it, and 0.1 destroyed a model within a few epochs"
    )  # fmt: skip

    @model_validator(mode="after")
    def _check(self) -> TreeGRPOOptions:
        if self.clip_low > self.clip_high:
            raise ValueError("clip_low is more than clip_high")
        if self.sampler == "cps" and self.noise_level * (1 + self.growth) > 1:
            raise ValueError("noise_level x (1 + growth) is at most 1 with sampler: cps")
        return self

    @property
    def leaves(self) -> int:
        """G."""
        return self.branches**self.depth

    def eta(self, level: int) -> float:
        """The noise of a branching, by its depth from 0."""
        return self.noise_level * (1 + self.growth * level / self.depth)

    def clip(self, advantages: torch.Tensor) -> torch.Tensor:
        """The clip of each sample's ratio. [B]."""
        rise = torch.sigmoid(self.slope * advantages)
        return self.clip_low + (self.clip_high - self.clip_low) * rise


class TreeGRPO(FlowObjective[TreeGRPOOptions]):
    """See the module."""

    options_kind = TreeGRPOOptions
    overlaps = False  # all trees grow level by level
    divides = True

    def __init__(self, setting: Setting, options: TreeGRPOOptions) -> None:
        super().__init__(setting, options)
        self.slots = options.depth
        self.schedule = self.policy.schedule(self.sampling.steps)

    @classmethod
    def check(cls, config: RunConfig, options: Any) -> None:
        """Check that the tree ends within the steps, and that its leaves are the group."""
        last, ends = config.model.steps - 1, options.first + options.depth
        if ends > last:
            raise ParetuneError(
                f"objective.options.depth: the tree ends at step {ends}; it must end by model.steps - 1 = "
                f"{last}"
            )
        if config.train.group_size != options.leaves:
            raise ParetuneError(
                f"train.group_size: {config.train.group_size} samples are not the {options.leaves} leaves of "
                f"{options.depth} branchings into {options.branches}"
            )
        if config.train.keep is not None:
            raise ParetuneError("train.keep: a tree is trained on whole; leave the key out")

    @classmethod
    def shardable(cls, options: Any) -> bool:
        """See `Objective.shardable`. As many trees pull as are good enough, in each process others."""
        return options.pull == 0

    @classmethod
    def trained_points(cls, config: RunConfig, options: Any) -> float:
        """See `Objective.trained_points`: the nodes of the tree, for each of its leaves."""
        nodes = sum(options.branches**level for level in range(options.depth))
        return nodes / options.leaves

    @classmethod
    def describe(cls, options: Any) -> str:
        """See `Objective.describe`."""
        return f"{options.depth} branchings into {options.branches}, noise {options.noise_level:g}"

    def make_sampling(self) -> Sampling:
        """With the noise of the tree in its steps."""
        own = self.options
        window = (own.first, own.first + own.depth)
        return replace(super().make_sampling(), window=window, sampler=own.sampler, eta=own.noise_level)

    # ------------------------------------------------------------ the tree

    @torch.no_grad()
    def rollouts(self, learner: Learner, generator: torch.Generator) -> Rollouts:
        """Draw a tree for each prompt, and score its leaves."""
        start = time.perf_counter()
        prompts = self.setting.train.prompts_per_epoch * learner.task.width
        index = learner.mixture.draw(prompts, generator)
        noise = self.policy.initial_noise(len(index), generator)
        crew, leaves = learner.crew, self.options.leaves
        dealt = crew.deal(len(index))
        with self.setting.sampling_weights():
            grown = self.grown(learner.conditions.select(index[dealt.all]), noise, generator, dealt.all)
        grown = grown.map(lambda x: x[: len(dealt.own) * leaves])
        pixels = self.policy.decode(grown.clean) if len(dealt.own) else None
        sampled = time.perf_counter()
        timeout = learner.config.executor.reward_timeout
        scoring = learner.mixture.begin_scoring(index[dealt.own], leaves, timeout)
        if pixels is not None:
            scoring.add(pixels)
            learner.show(pixels, leaves)
        raw = crew.gather(scoring.scores().raw.transpose(0, 1), 1, len(index))
        scored = time.perf_counter()
        scores = learner.mixture.joined(raw, index)
        trajectories = grown.map(lambda x: crew.gather(x, leaves, len(index)))
        wide = noise.repeat_interleave(leaves, 0)
        return Rollouts(trajectories, scores, index, wide, sampled - start, scored - sampled)

    def grown(
        self, conditions: Conditions, noise: torch.Tensor, generator: torch.Generator, trees: torch.Tensor
    ) -> Trajectories:
        """The leaves of some of the trees that grow from noise, as trajectories of T * G samples.

        Args:
            conditions: of these trees' prompts.
            noise: [P, ..], where all trees begin.
            generator: draws the noise of all trees.
            trees: [T], which of them grow here.
        """
        x, leaves = noise[trees], self.options.leaves
        first, last = self.sampling.window
        states: list[torch.Tensor] = []
        log_probs: list[torch.Tensor] = []
        means: list[torch.Tensor] = []
        for number in range(self.schedule.steps):
            v = self._velocity(x, number, conditions)
            if not first <= number < last:
                x = euler_step(x, v, self.schedule.dts[number])
                continue
            if not states:
                states.append(_wide(x, leaves, len(trees)))
            branches = self.options.branches
            nodes = len(x) * branches // len(trees)  # of a tree
            z = torch.randn((len(noise) * nodes, *x.shape[1:]), generator=generator)
            z = z.unflatten(0, (len(noise), nodes))[trees].flatten(0, 1)
            x, v = x.repeat_interleave(branches, 0), v.repeat_interleave(branches, 0)
            step = self.step(number, x, v, noise=z)
            x = step.sample
            states.append(_wide(x, leaves, len(trees)))
            log_probs.append(_wide(step.log_prob, leaves, len(trees)))
            means.append(_wide(step.mean, leaves, len(trees)))
        return Trajectories(x, *(torch.stack(kept, dim=1) for kept in (states, log_probs, means)))

    def _velocity(self, x: torch.Tensor, number: int, conditions: Conditions) -> torch.Tensor:
        """The velocities of all trees' states at a step, each prompt's states side by side. On the CPU."""
        each, parts = len(x) // len(conditions.embeds), []
        for index in torch.arange(len(x)).split(self.sampling.batch):
            own = x[index].to(self.policy.device)
            sigma = torch.full((len(own),), self.schedule.sigmas[number], device=own.device)
            parts.append(self.velocity(own, sigma, conditions.select(index // each)).cpu())
        return torch.cat(parts)

    def step(self, number: int, x: torch.Tensor, v: torch.Tensor, **given: torch.Tensor) -> Step:
        """A stochastic step with the noise of its depth. given: noise to draw with, or a sample to score."""
        sampling = replace(self.sampling, eta=self.options.eta(number - self.sampling.window[0]))
        return stochastic_step(self.schedule, number, sampling, x, v, **given)

    def collect(self, learner: Learner, generator: torch.Generator) -> Collected:
        """See `FlowObjective.collect`; the best leaf of each tree is noted, and whether it is good enough."""
        collected = super().collect(learner, generator)
        if collected.batch is not None:
            self.best = collected.batch.advantages.view(-1, self.options.leaves).argmax(1)
        return collected

    def advantages(self, mixture: Any, scores: Any) -> torch.Tensor:
        """See `FlowObjective.advantages`. Notes the trees whose best leaf is above the mean of all leaves."""
        advantages = super().advantages(mixture, scores)
        better = (mixture.oriented(scores) * mixture.shares(scores.applies)[..., None]).sum(0)
        above = better.amax(1) > better.mean()
        self.pulls = above[informative_groups(advantages)]
        return advantages

    # ------------------------------------------------------------ the loss

    def begin_epoch(self, batch: Batch, generator: torch.Generator) -> None:
        """Draw the noise of the pull, one level for each tree and slot."""
        self.batch = batch
        if self.options.pull == 0:
            return
        trees, shape = len(self.best), batch.trajectories.clean.shape[1:]
        self.sigmas = torch.rand((self.slots, trees), generator=generator).clamp(min=0.02)
        self.noise = torch.randn((self.slots, trees, *shape), generator=generator)

    def accumulate(self, part: torch.Tensor) -> dict[str, float]:
        """See `FlowObjective.accumulate`. Trees that fit in a micro-batch are not divided."""
        micro, leaves = self.setting.train.micro_batch, self.options.leaves
        whole = micro // leaves * leaves
        sums: dict[str, float] = {"loss": 0.0, "kl": 0.0, "ratio": 0.0}
        for slot in range(self.slots):
            for index in part.split(whole or micro):
                share = len(index) / (len(part) * self.slots)
                loss = self.loss(index, slot)
                self.setting.scaled(loss.total * share).backward()
                for key, value in (("loss", float(loss.total.detach())), ("kl", loss.kl),
                                   ("ratio", loss.ratio)):  # fmt: skip
                    sums[key] += value * share
            self._pull(part, slot, sums)
        return sums

    def loss(self, index: torch.Tensor, slot: int) -> Loss:
        """The clipped loss of one depth. Of whole trees, the leaves of a node share its velocity."""
        t, device = self.batch.trajectories, self.policy.device
        assert t.states is not None
        assert t.log_probs is not None
        number = self.sampling.window[0] + slot
        below = self.options.leaves // self.options.branches**slot  # leaves of a node
        whole = self._whole(index)
        nodes = index[::below] if whole else index
        x = t.states[nodes, slot].to(device)
        sigma = torch.full((len(x),), self.schedule.sigmas[number], device=device)
        conditions = self.batch.conditions.select(nodes)
        v = self.velocity(x, sigma, conditions)
        times = len(index) // len(nodes)
        wide = x.repeat_interleave(times, 0)
        after = t.states[index, slot + 1].to(device)
        step = self.step(number, wide, v.repeat_interleave(times, 0), sample=after)
        advantages = self.batch.advantages[index].to(device)
        ratio = losses.importance_ratio(step.log_prob, t.log_probs[index, slot].to(device))
        total = losses.clipped_policy_loss(ratio, advantages, self.options.clip(advantages))
        mean_ratio = float(ratio.mean().detach())
        if self.setting.kl == 0:
            return Loss(total, 0.0, mean_ratio)
        reference = self.velocity_under(self.setting.reference_weights, x, sigma, conditions)
        mean = self.step(number, wide, reference.repeat_interleave(times, 0), sample=after).mean
        kl = losses.mean_kl(step.mean, mean, step.drift_std)
        return Loss(total + self.setting.kl * kl, float(kl.detach()), mean_ratio)

    def _whole(self, index: torch.Tensor) -> bool:
        """Whether the samples in `index` are whole trees."""
        leaves = self.options.leaves
        return len(index) % leaves == 0 and bool((index[::leaves] % leaves == 0).all())

    def _pull(self, part: torch.Tensor, slot: int, sums: dict[str, float]) -> None:
        """Accumulate the gradient of flow matching on the best leaves of an update's trees."""
        trees = self.batch.group[part].unique()
        pulled = trees[self.pulls[trees]]
        if self.options.pull == 0 or len(pulled) == 0:
            return
        device, leaves = self.policy.device, self.options.leaves
        for some in pulled.split(self.setting.train.micro_batch):
            rows = some * leaves + self.best[some]
            clean = self.batch.trajectories.clean[rows].to(device)
            noise, sigma = self.noise[slot, some].to(device), self.sigmas[slot, some].to(device)
            v = self.velocity(noised(clean, noise, sigma), sigma, self.batch.conditions.select(rows))
            share = self.options.pull * len(some) / (len(trees) * self.slots)
            fit = -losses.matching_log_prob(v, clean, noise).mean()
            self.setting.scaled(share * fit).backward()
            sums["pull"] = sums.get("pull", 0.0) + float(fit.detach()) * len(some) / (len(trees) * self.slots)


def _wide(values: torch.Tensor, leaves: int, prompts: int) -> torch.Tensor:
    """Values of the nodes of a depth, for each of their leaves."""
    return values.repeat_interleave(leaves * prompts // len(values), 0)
