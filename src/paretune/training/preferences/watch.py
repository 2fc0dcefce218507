"""What training does to the better and the worse samples of lists, for an epoch's row of metrics.

r: implicit rewards, e_ref - e; score: greater is better; both [L, K].
"""

from __future__ import annotations

import torch

from ...ops.preference_losses import better, gaps, mean_over_pairs


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


