"""What all flow-matching policies share: conditions, schedules, and sampling with or without noise.

A policy provides four things: the conditions of prompts, the velocity at (x, sigma), the sigmas of its
schedule, and the decoding of latents. Everything else is here. Shapes: x [B, ...] are latents, of a picture
[C, h, w], packed into tokens [N, C], or of a clip [C, t, h, w]; sigma in (0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from ..ops.flow_sde import Step, cps_step, dance_step, euler_step, sde_step
from ..reward_tokens.pipelines import Scaled
from .conditions import Conditions
from .policy import Policy

__all__ = ["Conditions", "FlowPolicy", "Sampling", "Schedule", "Trajectories", "joined", "sample",
           "sample_parts", "stochastic_step"]  # fmt: skip


@dataclass(frozen=True)
class Schedule:
    """The noise levels of sampling.

    sigmas: N + 1 values from 1 to 0. dts: the N differences between them, as the scheduler rounds them.
    """

    sigmas: tuple[float, ...]
    dts: tuple[float, ...]

    @classmethod
    def from_tensor(cls, sigmas: torch.Tensor) -> Schedule:
        """The schedule of a scheduler's sigmas, float32 [N + 1]."""
        s = sigmas.float().cpu()
        return cls(tuple(s.tolist()), tuple((s[1:] - s[:-1]).tolist()))

    @property
    def steps(self) -> int:
        """The number of steps, N."""
        return len(self.dts)


class FlowPolicy(Policy, Protocol):
    """The methods that a flow model needs to be sampled and trained."""

    def encode(
        self, prompts: Sequence[str], guidance: bool, tokens: Sequence[Scaled] = ()
    ) -> Conditions:
        """Embed prompts.

        Args:
            prompts: P prompts, `types.Pictured` for a model that takes an input picture.
            guidance: whether to embed the negative prompt too, for a model that needs one to be guided.
            tokens: reward tokens that follow every prompt. Without tokens the result is that of the plain
                pipeline.
        """
        ...

    def free_text(self) -> None:
        """Release the text encoders after all prompts are embedded."""
        ...

    def velocity(
        self, x: torch.Tensor, sigma: torch.Tensor, conditions: Conditions, guidance: float
    ) -> torch.Tensor:
        """The velocity v at x, float32, of the shape of x. sigma: [B]."""
        ...

    def schedule(self, steps: int) -> Schedule:
        """The sigmas of the model's scheduler for a number of steps."""
        ...

    def initial_noise(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Noise [count, ...], drawn on the CPU so that a seed gives the same noise on every device."""
        ...

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents -> samples as defined in `types`: pictures or clips in [0, 1], float32, on the CPU.

        They are decoded in batches of a size that divides 64, so that 64 at a time give the same bits.
        """
        ...

    def encode_media(self, pixels: torch.Tensor) -> torch.Tensor:
        """Samples as `decode` gives them -> latents, float32, on the CPU, without random numbers."""
        ...


@dataclass(frozen=True)
class Sampling:
    """How samples are drawn. window: the [first, last) stochastic steps; empty for an ODE."""

    steps: int
    guidance: float
    window: tuple[int, int] = (0, 0)
    sampler: str = "sde"
    eta: float = 0.7
    batch: int = 64


@dataclass(frozen=True)
class Trajectories:
    """Samples with their stochastic steps.

    clean: the final latents [B, ...]. states: [B, W + 1, ...], before and after each of the window's W steps.
    log_probs: [B, W], of the stochastic steps under the policy that drew them. means: [B, W, ...].
    """

    clean: torch.Tensor
    states: torch.Tensor | None = None
    log_probs: torch.Tensor | None = None
    means: torch.Tensor | None = None

    def select(self, index: torch.Tensor) -> Trajectories:
        """The trajectories of the samples in `index`."""
        return self.map(lambda x: x[index])

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Trajectories:
        """The trajectories whose tensors are `change` of these."""
        rest = (None if x is None else change(x) for x in (self.states, self.log_probs, self.means))
        return Trajectories(change(self.clean), *rest)


def stochastic_step(
    schedule: Schedule,
    index: int,
    sampling: Sampling,
    x: torch.Tensor,
    v: torch.Tensor,
    noise: torch.Tensor | None = None,
    sample: torch.Tensor | None = None,
) -> Step:
    """One stochastic step of the chosen sampler.

    Args:
        schedule: the noise levels.
        index: the step in the schedule.
        sampling: the sampler and its eta.
        x: the state [B, ...].
        v: the velocity at x.
        noise: to draw a sample.
        sample: a drawn sample, to score it. Give either noise or sample.
    """
    s, s_next = schedule.sigmas[index], schedule.sigmas[index + 1]
    if sampling.sampler == "cps":
        return cps_step(x, v, s, s_next, sampling.eta, noise=noise, sample=sample)
    if sampling.sampler == "dance":
        return dance_step(x, v, s, s_next, sampling.eta, noise=noise, sample=sample)
    second = schedule.sigmas[1]
    return sde_step(x, v, s, s_next, sampling.eta, second, noise=noise, sample=sample)


def sample(
    policy: FlowPolicy,
    conditions: Conditions,
    noise: torch.Tensor,
    sampling: Sampling,
    generator: torch.Generator | None = None,
    rows: torch.Tensor | None = None,
) -> Trajectories:
    """Draw samples.

    Args:
        policy: the model.
        conditions: of B prompts.
        noise: the initial noise [B, ...].
        sampling: steps, guidance, and the sampler.
        generator: for the noise of stochastic steps.
        rows: the samples to draw, by default all B. A sample has the same noise whichever others are drawn.
    """
    return joined(list(sample_parts(policy, conditions, noise, sampling, generator, rows)))


def sample_parts(
    policy: FlowPolicy,
    conditions: Conditions,
    noise: torch.Tensor,
    sampling: Sampling,
    generator: torch.Generator | None = None,
    rows: torch.Tensor | None = None,
) -> Iterator[Trajectories]:
    """Draw samples in parts of `sampling.batch`, each when it is asked for. See `sample`."""
    schedule = policy.schedule(sampling.steps)
    # The noise is drawn for all samples at once, so that it does not depend on the batch size.
    added = [torch.randn(noise.shape, generator=generator) for _ in range(*sampling.window)]
    numbers = torch.arange(len(noise)) if rows is None else rows

    @torch.no_grad()
    def part(index: torch.Tensor) -> Trajectories:
        x = noise[index].to(policy.device)
        step_noise = [z[index] for z in added]
        return _sample_batch(policy, conditions.select(index), x, schedule, sampling, step_noise)

    return map(part, numbers.split(sampling.batch))


def joined(parts: Sequence[Trajectories]) -> Trajectories:
    """The trajectories of several parts as one."""
    window = (_join([getattr(p, f) for p in parts]) for f in ("states", "log_probs", "means"))
    return Trajectories(torch.cat([p.clean for p in parts]), *window)


def _join(parts: list[torch.Tensor | None]) -> torch.Tensor | None:
    present = [p for p in parts if p is not None]
    return torch.cat(present) if present else None


def _sample_batch(
    policy: FlowPolicy,
    conditions: Conditions,
    x: torch.Tensor,
    schedule: Schedule,
    sampling: Sampling,
    added: Sequence[torch.Tensor],
) -> Trajectories:
    """Draw one batch. added: the noise of each stochastic step."""
    first, last = sampling.window
    states, log_probs, means = [], [], []
    for i in range(schedule.steps):
        sigma = torch.full((len(x),), schedule.sigmas[i], device=x.device)
        v = policy.velocity(x, sigma, conditions, sampling.guidance)
        if not first <= i < last:
            x = euler_step(x, v, schedule.dts[i])
            continue
        if not states:
            states.append(x)
        z = added[i - first].to(x.device)
        step = stochastic_step(schedule, i, sampling, x, v, noise=z)
        x = step.sample
        states.append(x)
        log_probs.append(step.log_prob)
        means.append(step.mean)
    if not states:
        return Trajectories(x)
    stacked = (torch.stack(t, dim=1) for t in (states, log_probs, means))
    return Trajectories(x, *stacked)
