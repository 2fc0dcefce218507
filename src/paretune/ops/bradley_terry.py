"""What a user prefers, from a few choices: weights of rewards by a Bradley-Terry model (PPD, 2501.06655).

n choices between two samples each, N rewards. The chosen one wins with probability sigmoid(w . d), d [n, N]
the gaps of the rewards' scores in units of each reward's spread. A normal prior holds w where choices say
nothing. A preference is w's nearest point of the simplex: weights from 0 up that sum to 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DRAWS = 4000  # of the posterior, from which the errors of the shares are taken


@dataclass(frozen=True)
class Fit:
    """What choices show.

    preference: N shares that sum to 1. error: their standard deviations. weights: w. explained: how many
    choices w orders as the user did, a tie as half.
    """

    preference: tuple[float, ...]
    error: tuple[float, ...]
    weights: tuple[float, ...]
    explained: float


def spreads(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The standard deviation of each reward over the samples of all choices. [n, N] twice -> [N].

    A missing score is NaN; a reward without two different scores has 1.
    """
    both = np.concatenate([first, second])
    found = np.array([np.std(column[np.isfinite(column)]) if np.isfinite(column).any() else 0.0
                      for column in both.T])  # fmt: skip
    return np.where(found > 1e-12, found, 1.0)


def fit_choices(chosen: np.ndarray, rejected: np.ndarray, prior: float = 1.0) -> Fit:
    """Fit the weights of rewards to choices.

    Args:
        chosen: [n, N] the scores of the samples that were chosen, greater is better; NaN where there is none.
        rejected: [n, N], of those that were not.
        prior: the precision of the prior of w, above 0.
    """
    gaps = np.nan_to_num((chosen - rejected) / spreads(chosen, rejected))
    w = np.zeros(gaps.shape[1])
    for _ in range(100):  # Newton's method on a strictly convex function
        p = 1 / (1 + np.exp(np.clip(gaps @ w, -500, 500)))  # the probability of the other choice
        hessian = gaps.T @ (gaps * (p * (1 - p))[:, None]) + prior * np.eye(len(w))
        step = np.linalg.solve(hessian, gaps.T @ p - prior * w)
        w = w + step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-10:
            break
    p = 1 / (1 + np.exp(np.clip(gaps @ w, -500, 500)))
    covariance = np.linalg.inv(gaps.T @ (gaps * (p * (1 - p))[:, None]) + prior * np.eye(len(w)))
    draws = np.random.default_rng(0).multivariate_normal(w, covariance, DRAWS)
    error = np.std([on_simplex(draw) for draw in draws], axis=0)
    margin = gaps @ w
    explained = float((margin > 0).sum() + (margin == 0).sum() / 2)
    shares, errors, weights = (tuple(v.tolist()) for v in (on_simplex(w), error, w))
    return Fit(shares, errors, weights, explained)


def on_simplex(w: np.ndarray) -> np.ndarray:
    """The nearest point, by squares, whose numbers are from 0 up and sum to 1. [N] -> [N]."""
    ordered = np.sort(w)[::-1]
    over = (np.cumsum(ordered) - 1) / np.arange(1, len(w) + 1)
    last = int(np.nonzero(ordered > over)[0][-1])
    return np.maximum(w - over[last], 0.0)
