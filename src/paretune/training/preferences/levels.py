"""Where the samples of a set are looked at, and what is predicted there: the targets.

Shapes: M samples in L lists of K; T slots, each a noise level of every list. At a slot, n samples: x, u
[n, ..], sigma [n].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ...models.flow import Conditions, Schedule
from ...ops.flow_matching import noised
from ...ops.inversion import inverted_step, mean_velocity
from .options import PreferenceOptions
from .sets import PreferenceSet

LEAST = 0.02  # of the noise levels
VelocityAt = Callable[[torch.Tensor, torch.Tensor, Conditions], torch.Tensor]


@dataclass(frozen=True)
class View:
    """Samples at a noise level each: x, the target u of the velocity there, sigma. See the module."""

    x: torch.Tensor
    u: torch.Tensor
    sigma: torch.Tensor


@dataclass(frozen=True)
class Levels:
    """sigmas: [T, L]. noise: [T, L, ..] or [T, M, ..]. states: [T, M, ..], inverted; or None.

    places: [T, L], which of the recorded states of a path are looked at; or None.
    """

    sigmas: torch.Tensor
    noise: torch.Tensor | None = None
    states: torch.Tensor | None = None
    places: torch.Tensor | None = None


def spread(count: int, generator: torch.Generator) -> torch.Tensor:
    """One number in each of `count` equal parts of (0, 1), in random order. [count]."""
    order = torch.randperm(count, generator=generator)
    return (order + torch.rand(count, generator=generator)) / count


def drawn_sigmas(
    lists: int, options: PreferenceOptions, generator: torch.Generator
) -> torch.Tensor:
    """Noise levels, one for each list and slot, spread evenly and then shifted. [T, L]."""
    even = spread(lists * options.times, generator)
    if options.levels == "logit":
        normal = torch.erfinv(2 * even.clamp(1e-6, 1 - 1e-6) - 1) * 2**0.5
        even = torch.sigmoid(normal)
    shift = options.time_shift
    even = shift * even / (1 + (shift - 1) * even)
    return even.view(lists, options.times).T.clamp(LEAST, 1.0).contiguous()


def draw_levels(
    of: PreferenceSet, options: PreferenceOptions, generator: torch.Generator
) -> Levels:
    """The levels of targets that need no model: fresh, kept and recorded."""
    lists, times, shape = len(of), options.times, of.clean.shape[1:]
    if options.target == "kept":
        assert of.noise is not None
        return Levels(drawn_sigmas(lists, options, generator), of.noise.expand(times, *of.noise.shape))
    rows = len(of.clean) if options.noise == "own" else lists
    if options.target == "recorded":
        assert of.path_sigma is not None
        most = of.path_sigma.shape[1]
        places = (spread(lists * times, generator) * most).long().clamp(max=most - 1).view(times, lists)
        sigmas = of.path_sigma[torch.arange(lists), places]
        return Levels(sigmas, torch.randn((times, lists, *shape), generator=generator), places=places)
    sigmas = drawn_sigmas(lists, options, generator)
    return Levels(sigmas, torch.randn((times, rows, *shape), generator=generator))


def view(of: PreferenceSet, levels: Levels, index: torch.Tensor, slot: int) -> View:
    """The samples in `index` at the level of one slot, on the CPU."""
    lists, clean = index // of.size, of.clean[index]
    sigma = levels.sigmas[slot, lists]
    if levels.states is not None:
        x = levels.states[slot, index]
        return View(x, mean_velocity(x, clean, sigma), sigma)
    assert levels.noise is not None
    rows = levels.noise.shape[1]
    noise = levels.noise[slot, index if rows == len(of.clean) else lists]
    x, u = noised(clean, noise, sigma), noise - clean
    if levels.places is not None:  # the second sample of a list is the policy, on its own path
        assert of.path_x is not None
        assert of.path_u is not None
        place = levels.places[slot, lists]
        policy = (index % of.size == 1).view(-1, *[1] * (clean.ndim - 1))
        x = torch.where(policy, of.path_x[lists, place], x)
        u = torch.where(policy, of.path_u[lists, place], u)
    return View(x, u, sigma)


def inversion_grid(schedule: Schedule) -> tuple[float, ...]:
    """The levels of a sampler, from 0 to 1."""
    return tuple(reversed(schedule.sigmas))


@torch.no_grad()
def invert_levels(
    of: PreferenceSet, options: PreferenceOptions, schedule: Schedule, conditions: Conditions,
    velocity: VelocityAt, batch: int, device: torch.device, generator: torch.Generator,
) -> Levels:  # fmt: skip
    """Levels of the inversion grid, and every sample inverted as far as its list needs.

    Args:
        of: the set.
        options: its times, and whether each step is renoised.
        schedule: whose levels are the grid.
        conditions: of all captions.
        velocity: of the model that inverts.
        batch: samples in a pass.
        device: of the model.
        generator: draws a level of the grid for each list and slot.
    """
    grid = inversion_grid(schedule)
    last, lists, times = len(grid) - 1, len(of), options.times
    places = (1 + (spread(lists * times, generator) * last).long().clamp(max=last - 1)).view(lists, times).T
    wanted = places.repeat_interleave(of.size, dim=1)  # [T, M]
    x = of.clean.clone()
    states = x.expand(times, *x.shape).clone()
    for place in range(1, last + 1):
        active = (wanted.amax(0) >= place).nonzero().flatten()
        if len(active) == 0:
            break
        for index in active.split(batch):
            chosen = conditions.select(of.caption[index])

            def at(x: torch.Tensor, sigma: float, chosen: Conditions = chosen) -> torch.Tensor:
                level = torch.full((len(x),), sigma, device=device)
                return velocity(x.to(device), level, chosen).cpu()

            x[index] = inverted_step(x[index], grid[place - 1], grid[place], at, options.renoise)
        for slot in range(times):
            here = (wanted[slot] == place).nonzero().flatten()
            states[slot, here] = x[here]
    return Levels(torch.tensor(grid)[places], states=states)
