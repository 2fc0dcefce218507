"""Inversion of a flow ODE: from a sample back to the states that a sampler would have passed through.

x [B, ..]; levels 0 = tau_0 < tau_1 < .. < tau_n. The velocity is taken at the level of the destination, so
that it is never asked for at sigma = 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

Velocity = Callable[[torch.Tensor, float], torch.Tensor]


def invert(
    clean: torch.Tensor, levels: Sequence[float], velocity: Velocity, renoise: bool = False
) -> Iterator[torch.Tensor]:
    """Yield the state at each level after the first.

    Args:
        clean: samples, at levels[0] = 0.
        levels: increasing noise levels.
        velocity: (x, sigma) -> v at x.
        renoise: average the velocity with the one at the point it leads to (ReNoise, once): two passes a
            step, and the error falls from first to second order.
    """
    x = clean
    for before, after in zip(levels, levels[1:], strict=False):
        first = velocity(x, after)
        there = x + (after - before) * first
        x = x + (after - before) * (first + velocity(there, after)) / 2 if renoise else there
        yield x


def mean_velocity(state: torch.Tensor, clean: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """(x_sigma - x_0) / sigma: the average velocity from 0 to sigma. sigma: [B]."""
    return (state - clean) / sigma.view(-1, *[1] * (state.ndim - 1))
