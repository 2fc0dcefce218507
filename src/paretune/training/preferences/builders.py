"""Builders: one function each makes the lists of samples of an epoch from the model's own samples.

Shapes: P prompts, G samples of each; L lists of K samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from ...models.flow import FlowPolicy, Sampling, Schedule
from ...ops.advantages import best_and_worst
from ...ops.flow_sde import euler_step
from ...ops.preference_losses import comparable, win_rates
from ...types import Samples
from ..mixture import Mixture, Scores
from ..objectives.flow import Learner, Rollouts, Setting, Weights
from ..together.crew import Dealt
from .options import PreferenceOptions
from .presets import Composition
from .sets import PreferenceSet


@dataclass(frozen=True)
class Maker:
    """What builders work with.

    preset, options: of the objective. sampling: how samples are drawn. guidance: that of training. negative:
    [P], for each prompt the index of its changed caption among the conditions. latents: of files that were
    read already, by the file and by the samples' fingerprints.
    """

    learner: Learner
    setting: Setting
    preset: Composition
    options: PreferenceOptions
    sampling: Sampling
    guidance: float
    negative: torch.Tensor
    latents: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict[str, dict[str, torch.Tensor]])

    @property
    def policy(self) -> FlowPolicy:
        """The model."""
        return self.setting.policy

    @property
    def schedule(self) -> Schedule:
        """The noise levels of the sampler."""
        return self.policy.schedule(self.sampling.steps)

    @property
    def drawing(self) -> Weights:
        """A context in which the policy has the weights that draw samples."""
        return self.setting.sampling_weights

    def scores(self, pixels: Samples | None, group: int, index: torch.Tensor, dealt: Dealt) -> Scores:
        """The scores of P groups, of which this process has some.

        Args:
            pixels: the samples of its own groups, None if it has none.
            group: G, samples of a group.
            index: [P], the prompts of all groups.
            dealt: which groups are its own.
        """
        mixture, crew = self.learner.mixture, self.learner.crew
        timeout = self.learner.config.executor.reward_timeout
        scoring = mixture.begin_scoring(index[dealt.own], group, timeout)
        if pixels is not None:
            scoring.add(pixels)
        raw = scoring.scores().raw.transpose(0, 1)
        return mixture.joined(crew.gather(raw, 1, len(index)), index)


@dataclass(frozen=True)
class Made:
    """lists: what to train on, None if no list has an order. facts: for the epoch's metrics."""

    lists: PreferenceSet | None
    facts: Mapping[str, float] = field(default_factory=dict)


def group_scores(mixture: Mixture, scores: Scores, maker: Maker) -> torch.Tensor:
    """The one score of each sample by which lists are ordered, greater is better. [P, G].

    Several rewards at once are joined as the recipe says for advantages, or vote with their weights.
    """
    better = mixture.oriented(scores)
    if maker.preset.scores == "wins":
        wins = torch.stack([win_rates(own[None]) for own in better])
        votes = mixture.shares(scores.applies)
        return (wins * votes[..., None]).sum(0) / votes.sum(0)[:, None]
    if len(better) > 1 and mixture.joint:
        return mixture.advantages(scores, maker.setting.settings)
    return (better * scores.applies[..., None]).sum(0)


def extremes(score: torch.Tensor) -> torch.Tensor:
    """The best and the worst sample of each group, in this order. [P, G] -> [P, 2]."""
    order = score.argsort(dim=1, descending=True, stable=True)
    return order[:, [0, -1]]


def chosen(score: torch.Tensor, maker: Maker) -> torch.Tensor:
    """The samples of each group that are compared, numbered within the group. [P, G] -> [P, K]."""
    if "pairs" in maker.preset.all_reads and maker.options.pairs == "all":
        keep = maker.setting.train.keep
        if keep is None:
            return torch.arange(score.shape[1]).expand_as(score)
        rows = best_and_worst(score, keep)
        return rows.nonzero()[:, 1].view(len(score), -1)
    return extremes(score)


def ordered(score: torch.Tensor, maker: Maker) -> torch.Tensor:
    """The lists that have an order in some cell. [L, K] or [L, K, S] -> their numbers."""
    cells = score if score.ndim == 3 else score[..., None]
    lists, size, count = cells.shape
    valid = comparable(cells.transpose(1, 2).reshape(-1, size), maker.options.tie)
    return valid.view(lists, count).any(1).nonzero().flatten()


def flat(score: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """The scores of chosen samples, [P, G] and [P, K] -> [P * K, 1]."""
    return score.gather(1, rows).reshape(-1, 1)


def rollout(maker: Maker, generator: torch.Generator) -> tuple[Rollouts, torch.Tensor, dict[str, float]]:
    """The groups of an epoch, their scores [P, G] and the facts about them."""
    drawn = maker.learner.rollout(generator)
    score = group_scores(maker.learner.mixture, drawn.scores, maker)
    facts = {
        "reward": drawn.scores.mean(), "reward_std": drawn.scores.spread(),
        "seconds_sample": drawn.seconds_sample, "seconds_score": drawn.seconds_score,
    }  # fmt: skip
    return drawn, score, facts


def finished(lists: PreferenceSet, maker: Maker, facts: Mapping[str, float]) -> Made:
    """The lists that have an order, with the number of the others among the facts."""
    kept = ordered(lists.lists(lists.score), maker)
    facts = {**facts, "tied": float(len(lists) - len(kept))}
    return Made(lists.select(kept) if len(kept) else None, facts)


def from_rollouts(maker: Maker, generator: torch.Generator) -> Made:
    """Each group is a list: its best and worst sample, or all. Single steps are lists of their own."""
    drawn, score, facts = rollout(maker, generator)
    groups, size = score.shape
    rows = chosen(score, maker)
    samples = (torch.arange(groups)[:, None] * size + rows).flatten()
    caption = drawn.index.repeat_interleave(rows.shape[1])
    lists = PreferenceSet(
        rows.shape[1], drawn.trajectories.clean[samples], caption, flat(score, rows),
        prompt=drawn.index, noise=drawn.noise[samples] if maker.options.target == "kept" else None,
    )  # fmt: skip
    made = finished(lists, maker, facts)
    if not maker.preset.steps or made.lists is None:
        return made
    states = drawn.trajectories.states
    assert states is not None
    kept = ordered(lists.lists(lists.score), maker)
    return Made(_steps_of(made.lists, lists.lists(states[samples])[kept], maker), made.facts)


def _steps_of(lists: PreferenceSet, states: torch.Tensor, maker: Maker) -> PreferenceSet:
    """Every step of the window as lists of its own. states: [L, K, W + 1, ..]."""
    first, last = maker.sampling.window
    count, size = last - first, lists.size
    repeated = torch.arange(len(lists)).repeat_interleave(count)
    wide = lists.select(repeated)
    before = states[:, :, :-1].transpose(1, 2).reshape(-1, *states.shape[3:])
    after = states[:, :, 1:].transpose(1, 2).reshape(-1, *states.shape[3:])
    step = torch.arange(first, last).repeat(len(lists))
    assert len(before) == len(repeated) * size
    return PreferenceSet(
        size, wide.clean, wide.caption, wide.score, prompt=wide.prompt, before=before, after=after, step=step
    )


def caption_lists(maker: Maker, generator: torch.Generator) -> Made:
    """A caption a side: the better sample with its prompt, the other with a prompt that was changed.

    DCPO compares the best and the worst sample of a group; TPO one sample, the best, with itself.
    """
    drawn, score, facts = rollout(maker, generator)
    rows = extremes(score)
    two = "pairs" in maker.preset.all_reads
    if not two:
        rows = rows[:, :1].expand(-1, 2)
    samples = (torch.arange(len(score))[:, None] * score.shape[1] + rows).flatten()
    caption = torch.stack([drawn.index, maker.negative[drawn.index]], 1).flatten()
    label = flat(score, rows) if two else torch.tensor([1.0, 0.0]).repeat(len(score))[:, None]
    lists = PreferenceSet(2, drawn.trajectories.clean[samples], caption, label, prompt=drawn.index)
    return finished(lists, maker, facts)


def policy_paths(maker: Maker, generator: torch.Generator) -> Made:
    """The best sample of each group as a demonstration, against a new path of the policy (Diffusion-DRO)."""
    drawn, score, facts = rollout(maker, generator)
    best = extremes(score)[:, 0]
    kept = comparable(score, maker.options.tie).nonzero().flatten()  # a tie has no best
    facts["tied"] = float(len(score) - len(kept))
    if len(kept) == 0:
        return Made(None, facts)
    samples = (torch.arange(len(score)) * score.shape[1] + best)[kept]
    clean = drawn.trajectories.clean[samples]
    return Made(with_paths(clean, drawn.index[kept], maker, generator), facts)


def with_paths(
    demonstrations: torch.Tensor, caption: torch.Tensor, maker: Maker, generator: torch.Generator
) -> PreferenceSet:
    """Demonstrations [L, ..], each with states of a path that the policy now takes for the same caption."""
    count, steps = len(caption), maker.sampling.steps
    kept = min(maker.options.recorded, steps)
    places = torch.stack([torch.randperm(steps, generator=generator)[:kept].sort().values
                          for _ in range(count)])  # fmt: skip
    noise = maker.policy.initial_noise(count, generator)
    xs, us = (torch.empty(count, kept, *noise.shape[1:]) for _ in range(2))
    schedule, ends = maker.schedule, []
    crew = maker.learner.crew
    dealt = crew.deal(count)
    with torch.no_grad(), maker.drawing():
        for index in dealt.all.split(maker.sampling.batch):
            x = noise[index].to(maker.policy.device)
            conditions = maker.learner.conditions.select(caption[index])
            for step in range(steps):
                sigma = torch.full((len(x),), schedule.sigmas[step], device=x.device)
                v = maker.policy.velocity(x, sigma, conditions, maker.guidance)
                row, slot = (places[index] == step).nonzero(as_tuple=True)
                xs[index[row], slot], us[index[row], slot] = x.cpu()[row], v.cpu()[row]
                x = euler_step(x, v, schedule.dts[step])
            ends.append(x.cpu())
    own = dealt.own
    end = crew.gather(torch.cat(ends)[: len(own)], 1, count)
    xs, us = (crew.gather(states[own], 1, count) for states in (xs, us))
    clean = torch.stack([demonstrations, end], 1).flatten(0, 1)
    label = torch.tensor([1.0, 0.0]).repeat(count)[:, None]
    sigmas = torch.tensor(schedule.sigmas)[places]
    return PreferenceSet(
        2, clean, caption.repeat_interleave(2), label, prompt=caption,
        path_x=xs, path_u=us, path_sigma=sigmas,
    )  # fmt: skip


Builder = Callable[[Maker, torch.Generator], Made]
