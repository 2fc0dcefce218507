"""Group-relative advantages. Scores are [P, G]: P prompts, G samples of each; R adds rewards in front."""

from __future__ import annotations

import torch


def group_advantages(
    scores: torch.Tensor, std: str = "group", clip: float = 5.0, eps: float = 1e-4
) -> torch.Tensor:
    """(score - group mean) / (std + eps), clipped to |A| <= clip. [P, G] -> [P, G].

    std: "group" (GRPO, Shao et al. 2024) or "global", over the whole batch (Flow-GRPO's public default).
    """
    equal = (scores == scores[:, :1]).all(dim=1, keepdim=True)  # whose mean may be a rounding away
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


def joint_advantages(
    scores: torch.Tensor, weights: torch.Tensor, order: str = "sum_then_normalise"
) -> torch.Tensor:
    """Advantages of several rewards for a joint baseline. scores [R, P, G], weights [R] -> [P, G].

    "sum_then_normalise": normalise the weighted sum. "normalise_then_sum" (GDPO, Liu et al. 2026):
    normalise each reward by its own group first, so that none drowns the others.
    """
    w = weights.view(-1, 1, 1)
    if order == "sum_then_normalise":
        return group_advantages((w * scores).sum(0))
    if order == "normalise_then_sum":
        return (w * torch.stack([group_advantages(s) for s in scores])).sum(0)
    raise ValueError(f"unknown order {order!r}")
