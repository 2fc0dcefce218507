"""Flow matching as pure functions: noise levels, noised samples, and the two losses of reward tokens.

Shapes: samples, noise, states and velocities [B, C, H, W]; sigma [B] in (0, 1). x_sigma = (1 - sigma) x_0 +
sigma eps, and the velocity of the straight path is eps - x_0 (Lipman et al. 2023, Liu et al. 2023).
"""

from __future__ import annotations

import math

import torch


def logit_normal_sigma(
    count: int, generator: torch.Generator, mean: float = 0.0, std: float = 1.0, shift: float = 1.0
) -> torch.Tensor:
    """`count` noise levels whose logits are normal (Esser et al. 2024, Stable Diffusion 3). [count].

    One level falls into each of `count` equally likely intervals, in random order: the same distribution,
    with less variance per batch. shift > 1 moves the levels towards noise: s sigma / (1 + (s - 1) sigma).
    """
    order = torch.randperm(count, generator=generator)
    uniform = (order + torch.rand(count, generator=generator)) / count
    # The inverse of the normal distribution function, which is infinite at 0 and 1.
    normal = math.sqrt(2) * torch.erfinv(2 * uniform.clamp(1e-6, 1 - 1e-6) - 1)
    sigma = torch.sigmoid(mean + std * normal)
    return shift * sigma / (1 + (shift - 1) * sigma)


def noised(clean: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """x_sigma: the straight path from the clean sample to the noise."""
    s = sigma.view(-1, *[1] * (clean.dim() - 1))
    return (1 - s) * clean + s * noise


def flow_matching_loss(
    velocity: torch.Tensor, clean: torch.Tensor, noise: torch.Tensor
) -> torch.Tensor:
    """E|v - (eps - x_0)|^2, a mean over all elements: RaTE's loss on its teacher's samples (2511.20629)."""
    return velocity_matching_loss(velocity, noise - clean)


def velocity_matching_loss(velocity: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """E|v - v_teacher|^2 at the same points: the flow-matching loss without the noise of its target.

    If the points are noised samples of the teacher and the teacher is exact, v_teacher is the mean of
    eps - x_0 given x. Both losses then have the same gradient in expectation.
    """
    return ((velocity - target) ** 2).mean()
