"""Guided pairs: two samples drawn again from one noised source, so that they share its motion (DenseDPO).

The source is the best sample of a group. Clips are scored frame by frame: the recipe's reward on the segment
around each latent frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ...models.flow import Schedule
from ...ops.flow_matching import noised
from ...ops.flow_sde import euler_step
from ..together.crew import Dealt
from .builders import Made, Maker, extremes, finished, group_scores, rollout
from .sets import PreferenceSet


def guided_pairs(maker: Maker, generator: torch.Generator) -> Made:
    """Two samples from one source at each group's noise level, with scores of their frames."""
    drawn, score, facts = rollout(maker, generator)
    count, crew = len(score), maker.learner.crew
    dealt = crew.deal(count)
    mine, own = dealt.all, 2 * len(dealt.own)
    samples = torch.arange(count) * score.shape[1] + extremes(score)[:, 0]
    sources = drawn.trajectories.clean[samples[mine]].repeat_interleave(2, dim=0)
    low, high = maker.options.eta
    eta = low + (high - low) * torch.rand(count, generator=generator)
    caption = drawn.index.repeat_interleave(2)
    conditions = maker.learner.conditions.select(drawn.index[mine].repeat_interleave(2))
    with torch.no_grad(), maker.drawing():
        noise = maker.policy.initial_noise(2 * count, generator).unflatten(0, (count, 2))[mine].flatten(0, 1)

        def velocity(x: torch.Tensor, sigma: float, index: torch.Tensor) -> torch.Tensor:
            level = torch.full((len(x),), sigma, device=maker.policy.device)
            own = conditions.select(index)
            v = maker.policy.velocity(x.to(maker.policy.device), level, own, maker.sampling.guidance)
            return v.cpu()

        starts = [first_level(maker.schedule, float(e)) for e in eta[mine] for _ in range(2)]
        # Processes that share a base in pieces must call it equally often.
        whole = crew.size > 1 and maker.learner.config.executor.shard == "full"
        clean = redrawn(sources, noise, starts, maker.schedule, velocity, maker.sampling.batch, whole)
    score = frame_scores(maker, clean[:own], drawn.index, dealt)
    lists = PreferenceSet(2, crew.gather(clean[:own], 2, count), caption, score, prompt=drawn.index)
    return finished(lists, maker, facts)


def first_level(schedule: Schedule, eta: float) -> int:
    """The first step of a sampler whose noise level is at most eta; the number of steps if there is none."""
    return next((i for i, sigma in enumerate(schedule.sigmas) if sigma <= eta), schedule.steps)


def redrawn(
    sources: torch.Tensor, noise: torch.Tensor, starts: Sequence[int], schedule: Schedule,
    velocity: Callable[[torch.Tensor, float, torch.Tensor], torch.Tensor], batch: int, whole: bool = False,
) -> torch.Tensor:  # fmt: skip
    """Samples drawn from noised sources by the sampler's steps from each one's start. [M, ..].

    Args:
        sources: [M, ..].
        noise: [M, ..].
        starts: M steps, see `first_level`. At step 0 the level is 1: the source has no part. At the last
            level, 0, it is the source.
        schedule: the noise levels.
        velocity: (x, sigma, indices of the samples) -> v.
        batch: samples in a pass.
        whole: whether velocities of all samples are asked for at every step, though some have not begun.
    """
    begin = torch.tensor(starts)
    levels = torch.tensor(schedule.sigmas)[begin]
    x = noised(sources, noise, levels)
    for step in range(schedule.steps):
        active = torch.arange(len(x)) if whole else (begin <= step).nonzero().flatten()
        for index in active.split(batch) if len(active) else ():
            v = velocity(x[index], schedule.sigmas[step], index)
            begun = begin[index] <= step
            x[index[begun]] = euler_step(x[index], v, schedule.dts[step])[begun]
    return x


def frame_scores(
    maker: Maker, latents: torch.Tensor, index: torch.Tensor, dealt: Dealt
) -> torch.Tensor:
    """The score of the segment around each latent frame. [2 P, S].

    The first latent frame holds one frame of the clip, each other an equal number.

    Args:
        maker: whose mixture scores.
        latents: two samples of each of this process's own prompts.
        index: [P], the prompts of all processes.
        dealt: which are its own.
    """
    mixture, frames = maker.learner.mixture, latents.shape[2] if latents.ndim == 5 else 1
    pixels = maker.policy.decode(latents) if len(latents) else None
    length = maker.learner.crew.most(0 if pixels is None else pixels.shape[1])
    spans = segments(length, frames, maker.options.segment)
    scored: dict[tuple[int, int], torch.Tensor] = {}
    for first, last in dict.fromkeys(spans):
        clips = None if pixels is None else pixels[:, first:last].contiguous()
        scores = maker.scores(clips, 2, index, dealt)
        scored[first, last] = group_scores(mixture, scores, maker).flatten()
    return torch.stack([scored[span] for span in spans], 1)


def segments(length: int, frames: int, segment: int | None) -> list[tuple[int, int]]:
    """For each latent frame the frames [first, last) of the clip that are scored for it.

    Args:
        length: frames of a clip.
        frames: latent frames: the first is one frame of the clip, the others share the rest evenly.
        segment: frames that are scored together, centred where they fit; None: a fifth, at least three.
    """
    width = min(segment or max(3, round(length / 5)), length)
    each = (length - 1) / max(frames - 1, 1)
    centres = [0.5] + [1 + (j - 0.5) * each for j in range(1, frames)]
    begins = [min(max(round(c - width / 2), 0), length - width) for c in centres]
    return [(b, b + width) for b in begins]

