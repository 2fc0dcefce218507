"""Losses of language models on lists of answers: how scores become one loss for each list. Pure functions.

Shapes: B lists of K answers, best first, of up to T tokens; a pair is a list of two. A score s [B, K] is a
weighted sum of token log-ratios (`score`; the weights are in `token_weights`). A link takes scores to losses
[B]. beta is the temperature. Every link holds its formula; docs/language-preferences.md names the sources.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, logsigmoid, softplus

from .preference_losses import gaps
from .rankings import swap_weights


@dataclass(frozen=True)
class Lists:
    """What a loss sees of B lists.

    log_probs: log pi of every token of every answer [B, K, T], 0 where there is none. reference: the same of
    the reference, without gradient; None where the loss has no reference. mask: bool [B, K, T], where there
    is a token. present: bool [B, K], False where a list has fewer than K answers. values: the answers' scores
    [B, K]. margin, weight: of the lists, [B]. given: numbers of the record for every token [B, K, T]. step:
    the number of every token's step from 0, -1 where there is no token [B, K, T]. Figures that the records do
    not hold are None.
    """

    log_probs: Tensor
    reference: Tensor | None
    mask: Tensor
    present: Tensor
    values: Tensor | None = None
    margin: Tensor | None = None
    weight: Tensor | None = None
    given: Tensor | None = None
    step: Tensor | None = None


def score(values: Tensor, weights: Tensor) -> Tensor:
    """s = sum_t u_t l_t. [B, K, T] -> [B, K]."""
    return (values * weights).sum(-1)


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - e^x) for x < 0, exact at both ends."""
    x = x.clamp(max=-1e-7)
    return torch.where(x > -0.6931, torch.log(-torch.expm1(x)), torch.log1p(-torch.exp(x)))


def log_odds(log_p: Tensor) -> Tensor:
    """log p / (1 - p)."""
    return log_p - log1mexp(log_p)


def pair_link(s: Tensor, beta: float, margin: float = 0.0) -> Tensor:
    """-log sigmoid(beta (s_w - s_l) - margin): DPO, and with a margin SimPO. The pair is the first two."""
    return softplus(margin - beta * (s[:, 0] - s[:, 1]))


def asft_link(log_p: Tensor, weight: float, beta: float = 1.0) -> Tensor:
    """-log p_w - weight (log sigmoid(beta o_w) + log sigmoid(-beta o_l)), with o the log-odds of p (ASFT).

    log_p: the mean log-probability of a token, [B, 2].
    """
    odds = log_odds(log_p)
    return -log_p[:, 0] - weight * (logsigmoid(beta * odds[:, 0]) + logsigmoid(-beta * odds[:, 1]))


def list_link(s: Tensor, target: Tensor, temperature: float, present: Tensor | None = None) -> Tensor:
    """-sum_i q_i log softmax(s / temperature)_i (ADPO): the cross-entropy to a target q [B, K].

    present: bool [B, K]; the answers that are not there have no share.
    """
    if present is not None:
        s = s.masked_fill(~present, -1e9)
    return -(target * log_softmax(s / temperature, 1)).sum(1)


def tree_link(
    s: Tensor, values: Tensor, beta: float, weighted: bool = True, present: Tensor | None = None
) -> Tensor:
    """sum over v_i > v_j of -w_ij log sigmoid(beta (s_i - s_j)) (tree TPO).

    w is `rankings.swap_weights` of the values at the current ranking, or 1 if not `weighted`. Answers of
    equal values make no term.
    """
    ordered = gaps(values) > 0
    if present is not None:
        ordered = ordered & present[:, :, None] & present[:, None, :]
        s = s.masked_fill(~present, -1e9)
    weights = swap_weights(values, s.detach()) if weighted else torch.ones_like(gaps(values))
    return (weights * softplus(-beta * gaps(s))).masked_fill(~ordered, 0.0).sum((1, 2))


def revision_link(r: Tensor, beta: float, share: float) -> Tensor:
    """share * improve + (1 - share) * generate, two squares each of log-ratios (SRPO).

    r [B, 6]: the log-ratios of w given l, l given l, w given w, l given w, w alone, l alone. "Given" means in
    the revision prompt that holds the other answer.
    """
    improve = (0.5 - beta * (r[:, 0] - r[:, 1])) ** 2 + (0.5 - beta * (r[:, 2] - r[:, 3])) ** 2
    generate = (beta * (r[:, 0] + r[:, 4] - r[:, 3] - r[:, 5]) - 1) ** 2
    return share * improve + (1 - share) * generate


def chase_link(own: Tensor, other: Tensor, beta: float, share: float, most: float = 10.0) -> Tensor:
    """-log sigmoid(beta m) + share * chase: the loss of one of two policies that chase each other (OFS-DPO).

    chase = -log sigmoid(beta (m_fast - m_slow)), where m = s_w - s_l. A positive share is the fast policy's,
    which should stay ahead; the slow one has a negative share, and so tries to overtake. That term alone has
    no lower bound, so its logit ends at -`most`, beyond which it has no gradient.

    Args:
        own: the margins m of the policy, [B].
        other: those of the other policy; no gradient reaches them.
        beta: the temperature.
        share: alpha, negative for the slow policy.
        most: see above.
    """
    ahead = own - other.detach() if share >= 0 else other.detach() - own
    logit = (beta * ahead).clamp(min=-most)
    return softplus(-beta * own) + share * softplus(-logit)


def triple_link(log_p: Tensor, mean_best: Tensor, beta: float, weight: float, margin: float = 0.0) -> Tensor:
    """-log sigmoid(beta (log pi_2 - log pi_3) - margin) - weight * (mean log pi_1 of a token) (triple TPO).

    log_p [B, 3]: of the best, the second and the worst answer; mean_best [B].
    """
    return pair_link(log_p[:, 1:], beta, margin) - weight * mean_best
