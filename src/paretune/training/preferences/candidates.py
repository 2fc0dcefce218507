"""Step candidates: several samples of one stochastic step from one state, judged by where they lead (SPO).

Shapes: P prompts, k candidates of each state. Sampling goes on from a random candidate, not from the best.
"""

from __future__ import annotations

from statistics import fmean

import torch

from ...models.flow import stochastic_step
from ...ops.flow_sde import euler_step
from .builders import Made, Maker, extremes, group_scores
from .sets import PreferenceSet


@torch.no_grad()
def step_candidates(maker: Maker, generator: torch.Generator) -> Made:
    """At each step of the window, the best and the worst candidate of each state, as a list of two."""
    learner, options, schedule = maker.learner, maker.options, maker.schedule
    index = learner.mixture.draw(maker.setting.train.prompts_per_epoch * learner.task.width, generator)
    count, k = len(index), options.candidates
    crew = learner.crew
    dealt = crew.deal(count)
    mine, own = dealt.all, len(dealt.own)
    first, last = maker.sampling.window
    x = maker.policy.initial_noise(count, generator)[mine]
    found: list[PreferenceSet] = []
    means, spreads = list[float](), list[float]()
    v: torch.Tensor | None = None  # the velocity at x, where the step before has computed it
    with maker.drawing():
        for step in range(last):
            if v is None:
                v = _velocity(maker, x, step, index[mine])
            if step < first:
                x, v = euler_step(x, v, schedule.dts[step]), None
                continue
            noise = torch.randn((count * k, *x.shape[1:]), generator=generator)
            noise = noise.unflatten(0, (count, k))[mine].flatten(0, 1)
            wide = x.repeat_interleave(k, 0), v.repeat_interleave(k, 0)
            after = stochastic_step(schedule, step, maker.sampling, *wide, noise=noise).sample
            ahead = _velocity(maker, after, step + 1, index[mine].repeat_interleave(k))
            clean = (after - schedule.sigmas[step + 1] * ahead)[: own * k]
            pixels = maker.policy.decode(clean) if own else None
            told = maker.scores(pixels, k, index, dealt)
            score = group_scores(learner.mixture, told, maker)
            means.append(told.mean())
            spreads.append(told.spread())
            all_x, all_after = crew.gather(x[:own], 1, count), crew.gather(after[: own * k], k, count)
            found.append(_pairs(all_x, all_after, score, index, step, options.threshold))
            chosen = torch.randint(k, (count,), generator=generator)
            rows = torch.arange(len(mine)) * k + chosen[mine]
            x, v = after[rows], ahead[rows]
    facts = {"reward": fmean(means), "reward_std": fmean(spreads)}
    joined = _joined(found)
    facts["tied"] = float(count * (last - first) - (0 if joined is None else len(joined)))
    return Made(joined, facts)


def decided(score: torch.Tensor, threshold: float) -> torch.Tensor:
    """The rows whose softmax differs by more than a threshold between best and worst. [P, k] -> numbers.

    Scores are divided by their standard deviation within rows, pooled over all, so that neither their scale
    nor how far prompts differ from each other enters.
    """
    spread = (score - score.mean(1, keepdim=True)).square().mean().sqrt()
    if float(spread) == 0:
        return torch.zeros(0, dtype=torch.long)
    share = torch.softmax(score / spread, 1)
    return (share.amax(1) - share.amin(1) > threshold).nonzero().flatten()


def _pairs(
    x: torch.Tensor, after: torch.Tensor, score: torch.Tensor, index: torch.Tensor, step: int,
    threshold: float,
) -> PreferenceSet:  # fmt: skip
    """The best and the worst candidate of each state whose scores are `decided`."""
    kept = decided(score, threshold)
    rows = (kept[:, None] * score.shape[1] + extremes(score)[kept]).flatten()
    before = x[kept].repeat_interleave(2, 0)
    label = score.flatten()[rows][:, None]
    return PreferenceSet(
        2, after[rows], index[kept].repeat_interleave(2), label, prompt=index[kept], before=before,
        after=after[rows], step=torch.full((len(kept),), step),
    )  # fmt: skip


def _joined(parts: list[PreferenceSet]) -> PreferenceSet | None:
    """The lists of all steps."""
    if not any(len(part) for part in parts):
        return None
    tensors = [part.tensors() for part in parts]
    return PreferenceSet(2, **{name: torch.cat([t[name] for t in tensors]) for name in tensors[0]})


def _velocity(maker: Maker, x: torch.Tensor, step: int, caption: torch.Tensor) -> torch.Tensor:
    """The velocity at the level of a step, with the guidance of sampling. On the CPU."""
    parts, device = [], maker.policy.device
    for rows in torch.arange(len(x)).split(maker.sampling.batch):
        sigma = torch.full((len(rows),), maker.schedule.sigmas[step], device=device)
        conditions = maker.learner.conditions.select(caption[rows])
        parts.append(maker.policy.velocity(x[rows].to(device), sigma, conditions, maker.sampling.guidance))
    return torch.cat(parts).cpu()


