"""How far rewards agree on the samples of one prompt, which is what an expert can learn from.

Shapes: R rewards; P prompts, G samples of each.
"""

from __future__ import annotations

import torch


def within_correlation(first: torch.Tensor, second: torch.Tensor) -> float | None:
    """The correlation of two rewards' scores within prompts, pooled over P prompts. [P, G] twice.

    Differences between prompts do not count. None where one of them never differs within a prompt.
    """
    a, b = (x.double() - x.double().mean(dim=1, keepdim=True) for x in (first, second))
    lengths = float((a.square().sum() * b.square().sum()).sqrt())
    scale = max(1.0, float(first.abs().max() * second.abs().max())) if first.numel() else 1.0
    return None if lengths <= 1e-12 * scale else float((a * b).sum()) / lengths


def agreement(scores: torch.Tensor, applies: torch.Tensor) -> list[list[float | None]]:
    """The R x R correlations of rewards, each pair on the prompts that both score.

    Args:
        scores: [R, P, G], greater is better.
        applies: bool [R, P].

    Returns:
        Rows of the symmetric matrix; None for a pair without such prompts, or without differences.
    """
    count = len(scores)
    found: list[list[float | None]] = [[None] * count for _ in range(count)]
    for i in range(count):
        for j in range(i, count):
            both = applies[i] & applies[j]
            value = within_correlation(scores[i, both], scores[j, both]) if bool(both.any()) else None
            found[i][j] = found[j][i] = value
    return found
