"""Group-relative advantages.

Scores are [P, G]: P prompts, G samples of each. Scores of R rewards are [R, P, G].
"""

from __future__ import annotations

import torch


def group_advantages(
    scores: torch.Tensor, std: str = "group", clip: float = 5.0, eps: float = 1e-4
) -> torch.Tensor:
    """(score - group mean) / (std + eps), clipped to |A| <= clip. [P, G] -> [P, G].

    std: "group" (GRPO, Shao et al. 2024) or "global", over the whole batch (Flow-GRPO's public default).
    """
    equal = (scores == scores[:, :1]).all(dim=1, keepdim=True)  # rounding may move the mean of equal scores
    centred = (scores - scores.mean(dim=1, keepdim=True)).masked_fill(equal, 0.0)
    if std == "group":
        scale = scores.std(dim=1, keepdim=True, unbiased=False)
    elif std == "global":
        scale = scores.std(unbiased=False)
    else:
        raise ValueError(f"std must be 'group' or 'global', not {std!r}")
    return (centred / (scale + eps)).clamp(-clip, clip)


def informative_groups(advantages: torch.Tensor) -> torch.Tensor:
    """Indices of the groups whose advantages are not all zero. [P, G] -> [<= P]."""
    return (advantages.abs() > 1e-6).any(dim=1).nonzero().flatten()


def best_and_worst(advantages: torch.Tensor, keep: int) -> torch.Tensor:
    """Whether a sample is among the keep / 2 best or keep / 2 worst of its group (DanceGRPO). bool [P, G].

    Of equal advantages the earlier sample counts as better. keep: even, and at most G.
    """
    order = advantages.argsort(dim=1, descending=True, stable=True)
    chosen = torch.cat([order[:, : keep // 2], order[:, -(keep // 2) :]], dim=1)
    return torch.zeros_like(advantages, dtype=torch.bool).scatter(1, chosen, True)


def joint_advantages(
    scores: torch.Tensor,
    weights: torch.Tensor,
    order: str = "sum_then_normalise",
    applies: torch.Tensor | None = None,
    std: str = "group",
    clip: float = 5.0,
) -> torch.Tensor:
    """Advantages of several rewards for a joint baseline. [R, P, G] -> [P, G].

    Args:
        scores: [R, P, G].
        weights: [R].
        order: "sum_then_normalise" normalises the weighted sum. "normalise_then_sum" (GDPO, Liu et al. 2026)
            normalises each reward within its group first, so that no reward dominates the others. GDPO's last
            step, the sum over the batch's own deviation, is left out: weights that sum to 1 keep the scale.
        applies: bool [R, P], whether a reward scores a prompt; by default each scores all prompts. Scores
            where it is False are not read.
        std: see `group_advantages`.
        clip: see `group_advantages`.
    """
    mask = torch.ones(scores.shape[:2], dtype=torch.bool) if applies is None else applies
    w = weights.view(-1, 1, 1)
    if order == "sum_then_normalise":
        return group_advantages((w * scores.masked_fill(~mask[..., None], 0.0)).sum(0), std, clip)
    if order == "normalise_then_sum":
        total = torch.zeros_like(scores[0])
        for share, values, rows in zip(weights, scores, mask, strict=True):
            total[rows] += share * group_advantages(values[rows], std, clip)
        return total
    raise ValueError(f"unknown order {order!r}")


def best_of_group(scores: torch.Tensor, share: float) -> torch.Tensor:
    """1 for the best `share` of every group (at least one sample), else 0. [P, G] -> [P, G].

    Of equal scores the earlier sample counts as better.
    """
    count = max(1, round(share * scores.shape[1]))
    order = scores.argsort(dim=1, descending=True, stable=True)
    return torch.zeros_like(scores).scatter(1, order[:, :count], 1.0)
