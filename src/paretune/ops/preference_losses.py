"""Comparisons of the samples of a list, their weights and their targets, as pure functions.

Shapes: N lists of K samples; a pair is a list of two. r, z, e and score are [N, K]. e: the error of the model
in training at a sample; r = e_ref - e: its implicit reward, 0 where the model is the reference; z: r times a
scale; score: greater is better. A comparison returns the loss of each list, [N]. Two scores that differ by
at most `tie` have no order; a list in which no two samples have an order gives 0 with no gradient, and
`comparable` finds such lists so that they can be left out.

Notation and sources: Diffusion-DPO (2311.12908), RankDPO (2410.18013), SmPO-Diffusion (2506.02698), ADPO
(2510.18913), Diffusion-LPO (2510.01540), DGPO (2510.08425), Diffusion-KTO (2404.04465), Diffusion-DRO
(2510.18353), Linear-DPO (2605.21123), MaPO (2406.06424), PatchDPO (2412.03177), SPO (2406.04314).
"""

from __future__ import annotations

import math

import torch
from torch.nn.functional import kl_div, log_softmax, logsigmoid, softplus


def better(score: torch.Tensor, tie: float = 0.0) -> torch.Tensor:
    """Whether sample i is better than sample j. [N, K] -> bool [N, K, K]."""
    return score[:, :, None] > score[:, None, :] + tie


def comparable(score: torch.Tensor, tie: float = 0.0) -> torch.Tensor:
    """Whether a list has two samples with an order. [N, K] -> bool [N]."""
    return score.amax(1) > score.amin(1) + tie


def gaps(values: torch.Tensor) -> torch.Tensor:
    """values_i - values_j. [N, K] -> [N, K, K]."""
    return values[:, :, None] - values[:, None, :]


def mean_over_pairs(terms: torch.Tensor, score: torch.Tensor, tie: float = 0.0) -> torch.Tensor:
    """The mean of the terms [N, K, K] over the pairs whose first sample is better. [N]."""
    order = better(score, tie)
    return terms.masked_fill(~order, 0.0).sum((1, 2)) / order.sum((1, 2)).clamp(min=1)


# ---------------------------------------------------------------- comparisons


def pair_loss(z: torch.Tensor, score: torch.Tensor, tie: float = 0.0) -> torch.Tensor:
    """-log sigmoid(z_i - z_j), a mean over the pairs whose first sample is better (Diffusion-DPO)."""
    return mean_over_pairs(softplus(-gaps(z)), score, tie)


def smooth_loss(
    z: torch.Tensor, score: torch.Tensor, label: torch.Tensor, gamma: float, tie: float = 0.0
) -> torch.Tensor:
    """-log sigmoid(gamma (2p - 1)(z_i - z_j)), a mean over pairs (SmPO-Diffusion).

    label: p [N, K, K], see `soft_labels`. At p = 1/2 there is no gradient; gamma = p = 1 is `pair_loss`.
    """
    return mean_over_pairs(softplus(-gamma * (2 * label - 1) * gaps(z)), score, tie)


def dcg_loss(z: torch.Tensor, score: torch.Tensor, tie: float = 0.0) -> torch.Tensor:
    """The pair losses, each times the change of the discounted cumulative gain, summed (RankDPO)."""
    weights = dcg_weights(score).masked_fill(~better(score, tie), 0.0)
    return (weights * softplus(-gaps(z))).sum((1, 2))


def anchored_loss(z: torch.Tensor, target: torch.Tensor, tau: float) -> torch.Tensor:
    """KL(q || softmax(z / tau)) (ADPO). target: q [N, K], see `list_targets`."""
    return kl_div(log_softmax(z / tau, 1), target, reduction="none").sum(1)


def plackett_loss(z: torch.Tensor, score: torch.Tensor) -> torch.Tensor:
    """-log of the Plackett-Luce probability of the list's order (Diffusion-LPO).

    Sample i is chosen from all samples that are not better than it; so tied samples share their set.
    """
    rivals = ~better(score).transpose(1, 2)  # j is not better than i
    among = z[:, None, :].expand(-1, z.shape[1], -1).masked_fill(~rivals, -math.inf)
    return (torch.logsumexp(among, 2) - z).sum(1)


def group_loss(z: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
    """-log sigmoid(sum_i A_i z_i) (DGPO). advantages: A [N, K]."""
    return softplus(-(advantages * z).sum(1))


def kto_loss(
    r: torch.Tensor, good: torch.Tensor, beta: float, baseline: torch.Tensor, good_weight: float = 1.0
) -> torch.Tensor:
    """lambda (1 - sigmoid(+-beta (r - b))), a mean over the samples of a list (Diffusion-KTO).

    Args:
        r: implicit rewards.
        good: bool [N, K], whether a sample is a desired one.
        beta: the scale.
        baseline: b, a scalar, without gradient; see `kto_baseline`.
        good_weight: lambda of the desired samples; that of the others is 1.
    """
    sign = torch.where(good, 1.0, -1.0)
    weight = torch.where(good, good_weight, 1.0)
    return (weight * (1 - torch.sigmoid(sign * beta * (r - baseline)))).mean(1)


def kto_baseline(r: torch.Tensor, good: torch.Tensor) -> torch.Tensor:
    """Half the sum of the two classes' mean implicit rewards, without gradient; of one class, its own."""
    classes = [r.detach()[rows].mean() for rows in (good, ~good) if bool(rows.any())]
    return torch.stack(classes).mean()


def hinge_loss(
    r: torch.Tensor, score: torch.Tensor, margin: float, tie: float = 0.0
) -> torch.Tensor:
    """max(m - (r_i - r_j), 0), a mean over pairs (Diffusion-DRO)."""
    return mean_over_pairs((margin - gaps(r)).clamp(min=0), score, tie)


def linear_loss(
    e: torch.Tensor, r: torch.Tensor, score: torch.Tensor, beta: float, floor: float, tie: float = 0.0
) -> torch.Tensor:
    """w (e_i - e_j) with the detached weight w of `linear_weights`, a mean over pairs (Linear-DPO)."""
    return mean_over_pairs(linear_weights(r, beta, floor) * gaps(e), score, tie)


def fit_loss(e: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """sum_i w_i e_i: a weighted fit, without a reference (PatchDPO). weight: w [N, K]."""
    return (weight * e).sum(1)


def mapo_loss(
    e: torch.Tensor, score: torch.Tensor, beta: float, temperature: float, tie: float = 0.0
) -> torch.Tensor:
    """e_i - beta log sigmoid(T (f(e_i) - f(e_j))), a mean over pairs, without a reference (MaPO).

    f(e) = (e / 2) / (exp(e / 2) - 1) falls from 1 with the error.
    """
    half = e / 2
    f = half / torch.expm1(half.clamp(min=1e-6))
    terms = e[:, :, None] - beta * logsigmoid(temperature * gaps(f))
    return mean_over_pairs(terms, score, tie)


def clamped(log_ratio: torch.Tensor, width: float) -> torch.Tensor:
    """log clamp(pi / pi_ref, 1 - width, 1 + width): no gradient outside (D3PO, SPO)."""
    return log_ratio.clamp(math.log(1 - width), math.log(1 + width))


# ---------------------------------------------------------------- weights and targets


def soft_labels(score: torch.Tensor) -> torch.Tensor:
    """p_ij = sigmoid(s_i - s_j): the softmax over the two. [N, K] -> [N, K, K]. Scores: see `scaled`."""
    return torch.sigmoid(gaps(score))


def scaled(score: torch.Tensor) -> torch.Tensor:
    """The scores of a whole set, of any shape, scaled to [0, 1] (SmPO-Diffusion); equal ones become 0."""
    low, high = score.min(), score.max()
    return (score - low) / (high - low).clamp(min=1e-12)


def dcg_gains(score: torch.Tensor) -> torch.Tensor:
    """G = 2^phi - 1."""
    return torch.exp2(score) - 1


def dcg_discounts(score: torch.Tensor) -> torch.Tensor:
    """1 / log(1 + rank), rank 1 the best, the natural logarithm. Of equal scores the earlier ranks first."""
    order = score.argsort(dim=1, descending=True, stable=True)
    ranks = torch.arange(1, score.shape[1] + 1, device=score.device).expand_as(score)
    rank = torch.zeros_like(order).scatter(1, order, ranks)
    return 1 / torch.log1p(rank.to(score.dtype))


def dcg_weights(score: torch.Tensor) -> torch.Tensor:
    """|G_i - G_j| |1/D_i - 1/D_j|: what swapping two samples changes. [N, K] -> [N, K, K]."""
    return gaps(dcg_gains(score)).abs() * gaps(dcg_discounts(score)).abs()


def list_targets(score: torch.Tensor, temperature: float, standardise: bool = True) -> torch.Tensor:
    """q = softmax(s / temperature), by default of scores standardised in the list (ADPO). [N, K]."""
    if standardise:
        centred = score - score.mean(1, keepdim=True)
        score = centred / score.std(1, keepdim=True, unbiased=False).clamp(min=1e-12)
    return torch.softmax(score / temperature, 1)


def linear_weights(r: torch.Tensor, beta: float, floor: float) -> torch.Tensor:
    """clamp(1/2 - 0.2 beta (r_i - r_j), floor, 1 - floor), without gradient (Linear-DPO). [N, K, K]."""
    return (0.5 - 0.2 * beta * gaps(r.detach())).clamp(floor, 1 - floor)


def margin_scale(
    margin: torch.Tensor, least: float = 0.5, most: float = 2.0, slope: float = 1.0, at: float = 2.0
) -> torch.Tensor:
    """c(h) of MADPO (2510.05342): `most` for small margins, `least` for great ones, 1 at |h| = `at`."""
    ratio = (most - 1) / (1 - least)
    return least + (most - least) / (1 + ratio * torch.exp(slope * (margin.abs() - at)))


def margin_weights(
    margin: torch.Tensor, least: float = 0.5, most: float = 2.0, slope: float = 1.0, at: float = 2.0
) -> torch.Tensor:
    """The weight of a pair by the margin h of its scores: sigma(c h) / sigma(h); 1 below -`at` (MADPO)."""
    c = margin_scale(margin, least, most, slope, at)
    weight = torch.exp(logsigmoid(c * margin) - logsigmoid(margin))  # their quotient may be 0 / 0
    return torch.where(margin > -at, weight, torch.ones_like(weight))


def semantic_weights(distance: torch.Tensor, alpha: float) -> torch.Tensor:
    """exp(-alpha d), d = 1 - cosine of the prompt and the preferred text (Sem-DPO, 2507.20133)."""
    return torch.exp(-alpha * distance)


def win_rates(scores: torch.Tensor) -> torch.Tensor:
    """The share of comparisons that a sample wins, over R rewards and K - 1 rivals; a tie is half a win.

    [R, N, K] -> [N, K] (Syn-Pic). The rewards' scales do not enter.
    """
    gap = scores[:, :, :, None] - scores[:, :, None, :]
    wins = (gap > 0).to(scores.dtype) + (gap == 0).to(scores.dtype) / 2
    k = scores.shape[2]
    return (wins.sum(3) - 0.5).sum(0) / (len(scores) * (k - 1))  # -0.5: the tie of a sample with itself


def agreement(first: torch.Tensor, second: torch.Tensor) -> tuple[float, int]:
    """How often two rewards order two samples of a list alike: the share, and the number of pairs.

    first, second: scores [N, K], greater is better. Pairs that tie in either are not counted; without any the
    share is 0.
    """
    signs = gaps(first).sign() * gaps(second).sign()
    alike, apart = int((signs > 0).sum()) // 2, int((signs < 0).sum()) // 2
    return (alike / (alike + apart) if alike + apart else 0.0), alike + apart


def shared_mean_gap(
    first: torch.Tensor, second: torch.Tensor, mean: torch.Tensor, reference: torch.Tensor, std: float
) -> torch.Tensor:
    """log rho_w - log rho_l of two samples drawn from one state (SPO). Tensors [B, ..]; returns [B].

    Both have the same mean under a model, so it is mean[(x_w - x_l)(mu - mu_ref)] / s^2.
    """
    return ((first - second) * (mean - reference)).flatten(1).mean(1) / std**2


def coefficients(loss: torch.Tensor, leaf: torch.Tensor) -> torch.Tensor:
    """The gradient of a loss by the errors that it was computed from, of their shape.

    A loss depends on the weights only through the errors, so sum(coefficients * e) has its gradient, and can
    be differentiated sample by sample.
    """
    (gradient,) = torch.autograd.grad(loss, leaf)
    return gradient
