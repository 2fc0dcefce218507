"""What training does to the better and the worse samples of lists, for an epoch's row of metrics.

r: implicit rewards, e_ref - e; score: greater is better; both [L, K].
"""

from __future__ import annotations

from typing import Any

import torch

from ...ops.preference_losses import better, gaps, mean_over_pairs
from .sets import PreferenceSet

LEVELS = 4  # equal parts of (0, 1), for each of which tau has a value
EDGES = (-4.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0)  # of the histogram of margins, in the loss's units


def watched(r: torch.Tensor, score: torch.Tensor) -> dict[str, float]:
    """Means over lists.

    accuracy: the share of pairs whose better sample has the greater implicit reward; ties count half.
    w_diff, l_diff: the implicit reward of the best and of the worst sample, apart: a loss can fall although
    both errors rise. margin: the mean gap of the implicit rewards over pairs. tau: Kendall's tau between the
    two orders, over the pairs that have one in the scores.
    """
    order, gap = better(score), gaps(r)
    right = (gap > 0).float() + (gap == 0).float() / 2
    found = order.any(2).any(1)
    if not bool(found.any()):
        return {}
    accuracy = mean_over_pairs(right, score)[found].mean()
    rows = torch.arange(len(r), device=r.device)[found]
    best, worst = score.argmax(1)[found], score.argmin(1)[found]
    return {
        "accuracy": float(accuracy), "tau": float(2 * accuracy - 1),
        "w_diff": float(r[rows, best].mean()), "l_diff": float(r[rows, worst].mean()),
        "margin": float(mean_over_pairs(gap, score)[found].mean()),
    }  # fmt: skip


class Watch:
    """Counts over an epoch that are no means: Kendall's tau by noise level, and the histogram of margins."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forget the epoch before."""
        self.right, self.pairs = torch.zeros(LEVELS), torch.zeros(LEVELS)
        self.margins = torch.zeros(len(EDGES) + 1, dtype=torch.long)

    def add(self, r: torch.Tensor, score: torch.Tensor, sigma: torch.Tensor, scale: float) -> None:
        """Count the pairs of some lists. sigma: [L], where they were looked at. scale: of r in the loss."""
        order, gap = better(score).cpu(), gaps(r.detach()).cpu()
        right = ((gap > 0).float() + (gap == 0).float() / 2) * order
        level = (sigma.cpu() * LEVELS).long().clamp(max=LEVELS - 1)
        self.right.index_add_(0, level, right.sum((1, 2)))
        self.pairs.index_add_(0, level, order.sum((1, 2)).float())
        place = torch.bucketize(scale * gap[order], torch.tensor(EDGES))
        self.margins += torch.bincount(place, minlength=len(EDGES) + 1)

    def row(self) -> dict[str, Any]:
        """tau_levels: Kendall's tau in each quarter of the noise levels, from clean to noise; None without
        pairs. margins: how many pairs have a margin, times the loss's scale, in each bin of EDGES."""
        if not bool(self.pairs.any()):
            return {}
        tau = [2 * right / pairs - 1 if pairs else None
               for right, pairs in zip(self.right.tolist(), self.pairs.tolist(), strict=True)]  # fmt: skip
        return {"tau_levels": tau, "margins": self.margins.tolist()}


def still_winners(lists: PreferenceSet) -> float | None:
    """The share of lists of clips whose best sample moves less than its worst; ties are half. Above one half,
    the labels reward still clips. None for pictures."""
    if lists.clean.ndim != 5 or lists.clean.shape[2] < 2:
        return None
    clean = lists.clean
    motion = lists.lists((clean[:, :, 1:] - clean[:, :, :-1]).abs().flatten(1).mean(1))
    score = lists.lists(lists.score.mean(1))
    rows = torch.arange(len(lists))
    gap = motion[rows, score.argmin(1)] - motion[rows, score.argmax(1)]
    return float(((gap > 0).float() + (gap == 0).float() / 2).mean())
