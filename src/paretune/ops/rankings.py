"""What a ranking of answers says: weights and targets of losses, and whether a model ranks as it should.

Shapes: B lists of K answers; pairs are given by two tensors [B], of the better and of the worse answer.
Sources: tree TPO (2410.12854), ADPO (2510.18913), MADPO (2510.05342), Sem-DPO (2507.20133), "Preference
learning algorithms do not learn preference rankings" (2405.19534).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from .preference_losses import gaps


def swap_weights(values: Tensor, scores: Tensor) -> Tensor:
    """|2^v_i - 2^v_j| |1/log(1 + rank_i) - 1/log(1 + rank_j)|, ranks by the scores. [B, K] -> [B, K, K].

    What swapping two answers changes in the discounted cumulative gain of the model's ranking (tree TPO).
    """
    order = scores.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(1, scores.shape[1] + 1, device=scores.device).expand_as(order)
    rank = torch.zeros_like(order).scatter(1, order, places)
    return gaps(torch.exp2(values)).abs() * gaps(1 / torch.log1p(rank.to(values.dtype))).abs()


def reward_targets(values: Tensor, temperature: float, present: Tensor | None = None) -> Tensor:
    """softmax(z / temperature) of scores standardised within the list (ADPO). [B, K].

    present: bool [B, K]; answers that are not there get no share. Equal scores give equal shares.
    """
    here = torch.ones_like(values, dtype=torch.bool) if present is None else present
    count = here.sum(1, keepdim=True)
    mean = values.masked_fill(~here, 0.0).sum(1, keepdim=True) / count
    centred = (values - mean).masked_fill(~here, 0.0)
    spread = (centred.square().sum(1, keepdim=True) / (count - 1).clamp(min=1)).sqrt().clamp(min=1e-12)
    return (centred / spread / temperature).masked_fill(~here, -math.inf).softmax(1)


def plain_targets(values: Tensor, temperature: float, present: Tensor | None = None) -> Tensor:
    """softmax(values / temperature): the distribution that a teacher gives by its log-ratios (ADPO). [B, K].

    present: see `reward_targets`.
    """
    here = torch.ones_like(values, dtype=torch.bool) if present is None else present
    return (values / temperature).masked_fill(~here, -math.inf).softmax(1)


def first_targets(values: Tensor) -> Tensor:
    """All on the first answer. [B, K]."""
    target = torch.zeros_like(values)
    target[:, 0] = 1.0
    return target


def pair_targets(margin: Tensor) -> Tensor:
    """sigmoid(m) and the rest: [B] -> [B, 2]. margin: in log-odds."""
    share = torch.sigmoid(margin)
    return torch.stack([share, 1 - share], 1)


# ---------------------------------------------------------------- does a model rank as it should


def ranks_right(better: Tensor, worse: Tensor) -> Tensor:
    """Whether the model's log-probability of the better answer is at least that of the worse. bool [B]."""
    return better >= worse


def ideal_ranks_right(share: Tensor, reference_gap: Tensor, beta: float) -> Tensor:
    """Whether the optimum of DPO ranks a pair right: logit(share) / beta + gap >= 0. bool [B].

    Args:
        share: the share of people who prefer the better answer.
        reference_gap: log pi_ref of the better answer minus that of the worse.
        beta: DPO's.
    """
    return torch.logit(share) / beta + reference_gap >= 0


def flip_threshold(reference_gap: Tensor, beta: float) -> Tensor:
    """The DPO loss below which a pair is ranked right: -log sigmoid(-beta gap). [B].

    reference_gap: log pi_ref of the better answer minus that of the worse.
    """
    return softplus(beta * reference_gap)
