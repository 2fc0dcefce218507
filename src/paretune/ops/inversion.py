"""Inversion of a flow ODE: from a sample back to the states that a sampler would have passed through.

x [B, ..]; levels 0 = tau_0 < tau_1 < .. < tau_n. The velocity is taken at the level of the destination, so
that it is never asked for at sigma = 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch

Velocity = Callable[[torch.Tensor, float], torch.Tensor]


def invert(
    clean: torch.Tensor, levels: Sequence[float], velocity: Velocity, renoise: bool = False
) -> Iterator[torch.Tensor]:
    """Yield the state at each level after the first. The arguments are those of `inverted_step`."""
    x = clean
    for before, after in pairwise(levels):
        x = inverted_step(x, before, after, velocity, renoise)
        yield x


def inverted_step(
    x: torch.Tensor, before: float, after: float, velocity: Velocity, renoise: bool = False
) -> torch.Tensor:
    """The state at the level `after`, from the state x at the lower level `before`.

    velocity: (x, sigma) -> v at x. renoise: average the velocity with the one at the point that it leads to
    (ReNoise, once): two passes, and the error falls from first to second order.
    """
    first = velocity(x, after)
    there = x + (after - before) * first
    return x + (after - before) * (first + velocity(there, after)) / 2 if renoise else there


def mean_velocity(state: torch.Tensor, clean: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """(x_sigma - x_0) / sigma: the average velocity from 0 to sigma. sigma: [B]."""
    return (state - clean) / sigma.view(-1, *[1] * (state.ndim - 1))
