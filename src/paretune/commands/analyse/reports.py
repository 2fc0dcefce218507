"""The reports on pairs: figures of what a model and its reference say of their answers. Pure.

Sources: "Preference learning algorithms do not learn preference rankings" (2405.19534), "3D-properties"
(2406.07327), "A hitchhiker's guide to *PO" (2407.15229).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...ops.rankings import flip_threshold, ideal_ranks_right, ranks_right
from ...ops.statistics import Figure, figure, mean_figure, rank_correlation
from .measured import Measured, Sums

Report = Mapping[str, Figure]
BETAS = (0.01, 0.1, 1.0, 5.0, 10.0)


def rankings(found: Measured, beta: float) -> dict[str, Figure]:
    """Whether the model ranks pairs as their labels do, and whether the optimum of DPO would."""
    w, low = found.better, found.worse
    gap = w.reference - low.reference

    def share(right: Tensor) -> Figure:
        return mean_figure(right, found.group)

    figures = {
        "ranking accuracy, sums": share(ranks_right(w.model, low.model)),
        "ranking accuracy, means of a token": share(ranks_right(_mean(w), _mean(low))),
        "ranking accuracy of the reference": share(ranks_right(w.reference, low.reference)),
        "reward accuracy": share(w.ratio > low.ratio),
    }
    ideal = {b: share(ideal_ranks_right(found.share, gap, b)) for b in BETAS}
    ordered = sorted(ideal.values(), key=lambda one: one.value)
    for b, one in ideal.items():
        figures[f"idealised ranking accuracy, beta {b:g}"] = one
    for word, one in zip(("least", "median", "greatest"), (ordered[0], ordered[2], ordered[4]), strict=True):
        figures[f"idealised ranking accuracy, {word}"] = one
    right = ranks_right(w.model, low.model).double()
    figures["alignment gap (ideal - observed)"] = share(
        ideal_ranks_right(found.share, gap, beta).double() - right
    )
    wrong = gap < 0
    figures["flip threshold, pairs that the reference ranks wrong"] = mean_figure(
        flip_threshold(gap, beta)[wrong], found.group[wrong]
    )
    return figures


def gradient_ratio(log_better: Tensor, log_worse: Tensor) -> Tensor:
    """dL/dpi_l : dL/dpi_w of DPO = -pi_w / pi_l: how much faster the worse answer falls."""
    return -torch.exp(log_better - log_worse)


def three_d(found: Measured) -> dict[str, Figure]:
    """Drop of rejected answers, degradation of chosen ones, dispersion to unseen ones."""
    w, low, unseen = found.better, found.worse, found.unseen
    after, before = found.entropy
    # Both are probabilities of whole answers, so their ratio is given as its logarithm.
    return {
        "change of a token's log-probability, chosen": mean_figure(_change(w), found.group),
        "change of a token's log-probability, rejected": mean_figure(_change(low), found.group),
        "change of a token's log-probability, unseen": mean_figure(_change(unseen), found.unseen_group),
        "share of pairs whose chosen answer fell": mean_figure(w.ratio < 0, found.group),
        "entropy on chosen answers": mean_figure(after, found.group),
        "entropy on chosen answers, reference": mean_figure(before, found.group),
        "log of the gradients' ratio, rejected to chosen": mean_figure(w.model - low.model, found.group),
    }


def length(found: Measured) -> dict[str, Figure]:
    """How far the better answers are the longer ones, in the data and to the model."""
    w, low = found.better, found.worse
    longer = (w.tokens - low.tokens).double()
    implicit = w.ratio - low.ratio
    known = (~found.margin.isnan()).nonzero().flatten()
    figures = {
        "tokens of the better less the worse answer": mean_figure(longer, found.group),
        "share of pairs whose better answer is longer": mean_figure(longer > 0, found.group),
        "rank correlation of length and implicit margin": figure(
            found.group, lambda rows: rank_correlation(longer[rows], implicit[rows])
        ),
    }
    if len(known):
        figures["rank correlation of length and margin"] = figure(
            found.group[known],
            lambda rows: rank_correlation(longer[known[rows]], found.margin[known[rows]]),
        )
    return figures


def credit(found: Measured, beta: float) -> dict[str, Figure]:
    """The implicit reward beta times the log-ratio, of whole answers; `token_credits` divides it."""
    return {
        "implicit reward, better answers": mean_figure(beta * found.better.ratio, found.group),
        "implicit reward, worse answers": mean_figure(beta * found.worse.ratio, found.group),
        "implicit margin": mean_figure(beta * (found.better.ratio - found.worse.ratio), found.group),
    }


def _mean(sums: Sums) -> Tensor:
    return sums.model / sums.tokens


def _change(sums: Sums) -> Tensor:
    return sums.ratio / sums.tokens
