"""One step of a flow-matching sampler, deterministic or stochastic, with its log-probability.

State x_s = (1 - s) x_0 + s * noise, the model predicts v = noise - x_0, s runs from 1 (noise) to 0.
Shapes: x, v, noise [B, ...]; log_prob [B]. Everything is computed in float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Step:
    """One step of a sampler.

    sample, mean: [B, ...]. std: of the step's noise. drift_std: std per unit of time, for the KL.
    log_prob: [B], the *mean* over dimensions, so that its size does not grow with the resolution.
    """

    sample: torch.Tensor
    mean: torch.Tensor
    std: float
    drift_std: float
    log_prob: torch.Tensor


def euler_step(x: torch.Tensor, v: torch.Tensor, dt: float) -> torch.Tensor:
    """x + dt v with dt = sigma_next - sigma < 0, as diffusers' FlowMatchEulerDiscreteScheduler does it."""
    return x.float() + dt * v


def sde_step(
    x: torch.Tensor,
    v: torch.Tensor,
    sigma: float,
    sigma_next: float,
    eta: float,
    sigma_second: float,
    noise: torch.Tensor | None = None,
    sample: torch.Tensor | None = None,
) -> Step:
    """Flow-GRPO's stochastic step (Liu et al. 2025, yifan123/flow_grpo).

    s = eta * sqrt(sigma / (1 - sigma)); at sigma = 1 the denominator takes sigma_second instead. At eta = 0
    it is the Euler step.

    Args:
        x: the state [B, ...].
        v: the predicted velocity [B, ...].
        sigma: the noise level of x.
        sigma_next: the noise level after the step.
        eta: the amount of noise.
        sigma_second: the schedule's second value.
        noise: [B, ...], to draw a sample.
        sample: [B, ...], a sample that was drawn before, to score it. Give either noise or sample.
    """
    drift = eta * math.sqrt(sigma / (1 - (sigma_second if sigma >= 1 else sigma)))
    return _drift_step(x, v, sigma, sigma_next, drift, noise, sample)


def dance_step(
    x: torch.Tensor,
    v: torch.Tensor,
    sigma: float,
    sigma_next: float,
    eta: float,
    noise: torch.Tensor | None = None,
    sample: torch.Tensor | None = None,
) -> Step:
    """DanceGRPO's stochastic step (Xue et al. 2025, arXiv 2505.07818): the same SDE with drift s = eta.

    The paper's mean, x + v dt - eta^2 / 2 * score * dt with score = -(x - (1 - sigma) x0) / sigma^2 and
    x0 = x - sigma v, is Flow-GRPO's mean with that s. Arguments: see `sde_step`.
    """
    return _drift_step(x, v, sigma, sigma_next, eta, noise, sample)


def _drift_step(
    x: torch.Tensor,
    v: torch.Tensor,
    sigma: float,
    sigma_next: float,
    drift: float,
    noise: torch.Tensor | None,
    sample: torch.Tensor | None,
) -> Step:
    """The step with drift s.

    mean = x (1 + s^2 dt / 2 sigma) + v dt (1 + s^2 (1 - sigma) / 2 sigma) and std = s sqrt(-dt).
    """
    x, v = x.float(), v.float()
    dt = sigma_next - sigma
    mean = x * (1 + drift**2 * dt / (2 * sigma)) + v * dt * (
        1 + drift**2 * (1 - sigma) / (2 * sigma)
    )
    std = drift * math.sqrt(-dt)
    sample = _draw(mean, std, noise, sample)
    scale = max(std, 1e-8)
    log_prob = -((sample - mean) ** 2) / (2 * scale**2) - math.log(scale * math.sqrt(2 * math.pi))
    return Step(sample, mean, std, drift, log_prob.flatten(1).mean(1))


def cps_step(
    x: torch.Tensor,
    v: torch.Tensor,
    sigma: float,
    sigma_next: float,
    eta: float,
    noise: torch.Tensor | None = None,
    sample: torch.Tensor | None = None,
) -> Step:
    """Coefficients-preserving sampling (Flow-CPS, Wang & Yu 2025): the noise level follows the schedule.

    mean = (1 - sigma') x0 + sqrt(sigma'^2 - std^2) x1 with std = sigma' sin(eta pi / 2), and the
    log-probability is -mean|x' - mean|^2, without the division by std^2. Arguments: see `sde_step`.
    """
    x, v = x.float(), v.float()
    x0, x1 = x - sigma * v, x + (1 - sigma) * v
    std = sigma_next * math.sin(eta * math.pi / 2)
    mean = (1 - sigma_next) * x0 + math.sqrt(sigma_next**2 - std**2) * x1
    sample = _draw(mean, std, noise, sample)
    log_prob = -((sample - mean) ** 2).flatten(1).mean(1)
    return Step(sample, mean, std, max(std, 1e-8), log_prob)


def random_steps(
    window: tuple[int, int], count: int, generator: torch.Generator
) -> tuple[int, ...]:
    """The steps to train on: `count` random steps of the window [first, last), in order.

    DanceGRPO draws them for each sample. Here one draw serves a whole epoch, so that all samples of a batch
    are at the same time.
    """
    first, last = window
    if count == last - first:  # draw nothing: the generator's state stays the same as without this choice
        return tuple(range(first, last))
    drawn = torch.randperm(last - first, generator=generator)[:count]
    return tuple(first + i for i in sorted(int(i) for i in drawn))


def _draw(
    mean: torch.Tensor, std: float, noise: torch.Tensor | None, sample: torch.Tensor | None
) -> torch.Tensor:
    if sample is None and noise is not None:
        return mean + std * noise
    if noise is None and sample is not None:
        return sample.float()
    raise ValueError("give either the noise to draw a sample with, or the sample to score")
