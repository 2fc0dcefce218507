"""Weights of rewards that are drawn anew for every group of samples, and advantages summed by them.

A policy that is told its weights learns a whole front of trade-offs (ParetoSlider, Golan et al. 2026, arXiv
2604.20816). Shapes: R rewards, P prompts, G samples of each.
"""

from __future__ import annotations

import torch

from .advantages import group_advantages

# Of three and more rewards: the share of draws in which one counts, and in which two do. In the rest all do.
ONE, TWO = 0.5, 0.35


def draw_weights(applies: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One vector of weights for each prompt, from 0 up, with sum 1. float32 [P, R].

    Two rewards: uniform over all trade-offs, which is Dirichlet(1, 1). More: one reward alone, two of them,
    or all, as ONE and TWO say; those that count are uniform over their trade-offs, too. A draw in which no
    reward counts that applies to the prompt is drawn again: nothing would be learnt from it.

    applies: bool [R, P]; some reward applies to every prompt.
    """
    rows = [_one(fits, generator) for fits in applies.T]
    return torch.stack(rows)


def _one(fits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    while True:
        weights = _vector(len(fits), generator)
        if (weights[fits] > 0).any():
            return weights


def _vector(count: int, generator: torch.Generator) -> torch.Tensor:
    chosen = count
    if count > 2:
        place = float(torch.rand((), generator=generator))
        chosen = 1 if place < ONE else 2 if place < ONE + TWO else count
    members = torch.randperm(count, generator=generator)[:chosen]
    weights = torch.zeros(count)
    if chosen == 1:
        weights[members] = 1.0
        return weights
    # Exponential variables, divided by their sum, are uniform over the simplex.
    parts = -torch.log1p(-torch.rand(chosen, generator=generator))
    weights[members] = parts / parts.sum()
    return weights


def weighted_advantages(
    scores: torch.Tensor,
    weights: torch.Tensor,
    applies: torch.Tensor,
    std: str = "group",
    clip: float = 5.0,
) -> torch.Tensor:
    """Advantages of each reward alone, normalised in its groups, then summed by each group's weights. [P, G].

    NFT's loss is linear in the advantage within the clip, so this is the sum of each reward's loss by the
    weights. A reward that does not apply to a prompt adds nothing.

    Args:
        scores: [R, P, G], greater is better; those where a reward does not apply are not read.
        weights: [P, R].
        applies: bool [R, P].
        std: see `group_advantages`.
        clip: see `group_advantages`.
    """
    total = torch.zeros_like(scores[0])
    for shares, values, rows in zip(weights.T, scores, applies, strict=True):
        total[rows] += shares[rows, None] * group_advantages(values[rows], std, clip)
    return total
