"""Spherical averaging of experts (WARP, Ramé et al. 2024, arXiv 2406.16768)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .lowrank import LowRank, inner, normalised, stack


def slerp(deltas: Sequence[LowRank | None], weights: Sequence[float]) -> LowRank:
    """Spherical interpolation of the changes, which keeps their length where a mean would shorten them.

    Two changes at the angle Ω become sin((1-λ)Ω)/sin Ω ΔW_1 + sin(λΩ)/sin Ω ΔW_2. More are taken in one after
    another, the k-th with λ = w_k / (w_1 + .. + w_k), so their order matters. Parallel, opposite and absent
    changes are interpolated linearly. It is a sum of the experts: rank Σ r_i, no loss.

    Args:
        deltas: N changes of one module, which has its own angles.
        weights: N weights.
    """
    shares = normalised(weights, len(deltas))
    factors = [0.0] * len(deltas)
    total = 0.0
    for k, (delta, share) in enumerate(zip(deltas, shares, strict=True)):
        if share == 0:
            continue
        total += share
        kept, added = _coefficients(stack(deltas, factors) if any(factors) else None, delta, share / total)
        factors = [kept * factor for factor in factors]
        factors[k] = added
    return stack(deltas, factors)


def _coefficients(mean: LowRank | None, delta: LowRank | None, share: float) -> tuple[float, float]:
    """The factors of the mean so far and of the next change, whose share of both is `share`."""
    if mean is None or delta is None:
        return 1.0 - share, share
    lengths = mean.norm() * delta.norm()
    if lengths == 0:
        return 1.0 - share, share
    angle = math.acos(max(-1.0, min(1.0, inner(mean, delta) / lengths)))
    if math.sin(angle) < 1e-4:  # there the formula is 0 / 0
        return 1.0 - share, share
    return math.sin((1 - share) * angle) / math.sin(angle), math.sin(share * angle) / math.sin(angle)
