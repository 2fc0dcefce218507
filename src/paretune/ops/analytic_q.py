"""The q of DAREx-q in closed form (2410.09344): kept entries of a pruned change are rescaled by 1/q.

Shapes: a change ΔW [m, n], the mean input x of its layer [n], c = ΔW ∘ x [m, n]; p is the share of entries
that are dropped. The q of a row brings the exponent of a bound on the change of its output, which holds with
probability γ, nearest to 0: η(1 − (1−p)/q) Σc + η² Φ(p) Σc² / (4q²) + ln(2/(1−γ)). The q of a layer is the
mean over its rows; η is chosen by what outputs lose (benchmarks/dare_q.py). `dare-q` itself needs no inputs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

STEPS = 200  # of the grid of q between 1 - p and 1


def phi(p: float) -> float:
    """Φ(p) = (1 − 2p) / ln((1−p)/p), whose limit at 1/2 is 1/2."""
    if not 0 < p < 1:
        raise ValueError(f"p {p} cannot be used; it lies in (0, 1)")
    if abs(p - 0.5) < 1e-6:
        return 0.5
    return (1 - 2 * p) / math.log((1 - p) / p)


def analytic_q(c: Tensor, p: float, eta: float, gamma: float = 0.95) -> float:
    """The q of a layer, in [1 − p, 1).

    Args:
        c: the change times the mean input, [m, n].
        p: the share of entries that are dropped.
        eta: the scale η.
        gamma: the probability of the bound.
    """
    q = (1 - p) + p * torch.arange(STEPS, dtype=torch.float64) / STEPS
    sums, squares = c.double().sum(1, keepdim=True), c.double().square().sum(1, keepdim=True)
    bound = eta * (1 - (1 - p) / q) * sums + eta**2 * phi(p) * squares / (4 * q**2)
    return float(q[(bound + math.log(2 / (1 - gamma))).abs().argmin(1)].mean())
