"""What each token of an answer counts in a preference loss, as pure functions.

Shapes: B lists of K answers of up to T tokens, first the better one. mask: bool [B, K, T], where there is a
token. Weights are float [B, K, T], 0 where there is none.
"""

from __future__ import annotations

import torch
from torch import Tensor


def all_tokens(mask: Tensor) -> Tensor:
    """1: the score is the sum over the tokens (DPO)."""
    return mask.float()


def mean_tokens(mask: Tensor) -> Tensor:
    """1 / |y|: the score is the mean of a token (LN-DPO, SimPO)."""
    return mask / mask.sum(-1, keepdim=True).clamp(min=1)


def common_tokens(mask: Tensor, tail: float) -> Tensor:
    """1 up to the length of the shortest answer of the list, `tail` beyond it (LD-DPO)."""
    lengths = mask.sum(-1)
    shortest = lengths.min(1, keepdim=True).values.unsqueeze(-1)
    return mask * torch.where(mask.cumsum(-1) <= shortest, 1.0, tail)


def side_tokens(mask: Tensor, first: float, others: float) -> Tensor:
    """`first` on the best answer and `others` on the rest (Flex-DPO)."""
    weights = torch.full((1, mask.shape[1], 1), others, device=mask.device)
    weights[:, 0] = first
    return mask * weights


def noncritical_tokens(mask: Tensor, contrast: Tensor) -> Tensor:
    """1 on the better answer, 1 - c on the worse one (cDPO). contrast: c, see `contrast_scores`."""
    better = torch.zeros_like(mask)
    better[:, 0] = True
    return mask * torch.where(better, 1.0, 1 - contrast)


def guided_tokens(mask: Tensor, ratio: Tensor, strength: float) -> Tensor:
    """1 + strength g on the better answer, 1 - strength g on the worse one (TGDPO).

    ratio: g, beta times the guide's log-ratio. The weights may turn negative, as in the source.
    """
    return mask * (1 + side_tokens(torch.ones_like(mask), strength, -strength) * ratio)


def step_tokens(step: Tensor, weight: Tensor) -> Tensor:
    """Weights for sum_k g_k mean_(t in k) l_t / sum_k g_k: a weighted mean over steps of means (tree TPO).

    Steps beyond the number of the list's shortest answer do not count. An answer without a token is one that
    the list lacks, and not its shortest.

    Args:
        step: the number of the step of each token from 0, -1 where there is no token. [B, K, T].
        weight: g of the step that a token belongs to. [B, K, T].
    """
    counts = step.amax(-1) + 1
    fewest = counts.masked_fill(counts == 0, counts.max()).min(1).values
    counted = (step >= 0) & (step < fewest[:, None, None])
    own = (step.unsqueeze(-1) == step.unsqueeze(-2)) & counted.unsqueeze(-2)
    sizes = own.sum(-1).clamp(min=1)
    share = torch.where(counted, weight / sizes, 0.0)
    return share / share.sum(-1, keepdim=True).clamp(min=1e-12)


def contrast_scores(good: Tensor, bad: Tensor, tokens: Tensor, strength: float = 1.0) -> Tensor:
    """c = softmax((1 + b) log p_good - b log p_bad) at each token (cDPO).

    Near 1 for the token that a model of correct answers would write and one of wrong answers would not.

    Args:
        good: the logits of the model that learned correct answers, [.., T, V].
        bad: those of the model that learned wrong answers.
        tokens: the answer's tokens, [.., T].
        strength: b.
    """
    mixed = (1 + strength) * good.log_softmax(-1) - strength * bad.log_softmax(-1)
    return mixed.softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
