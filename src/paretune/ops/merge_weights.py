"""Merge weights that are computed: min-norm (MGDA) and search on the simplex.

Shapes: N experts; weights are N non-negative numbers that sum to one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import torch
from torch import Tensor

from .linalg import symmetric_pinv
from .lowrank import cosines


def min_norm_point(gram: Tensor) -> Tensor:
    """The convex weights w that minimise wᵀ G w over the simplex. gram: [N, N] PSD; float64 [N].

    For two experts: the closed form w_1 = clip((g_22 - g_12) / (g_11 + g_22 - 2 g_12), 0, 1) (Désidéri 2012;
    Sener and Koltun 2018). For more: an active set method. With x = t w, ½ xᵀ(G + 11ᵀ)x - 1ᵀx over x ≥ 0 has
    its minimum at the same w. That is non-negative least squares, which the method of Lawson and Hanson
    solves in finitely many steps (Frank-Wolfe, which the MGDA papers use, only converges to it).
    """
    gram = gram.double()
    if len(gram) == 1:
        return torch.ones(1, dtype=torch.float64)
    if len(gram) == 2:
        slope = float(gram[0, 0] + gram[1, 1] - 2 * gram[0, 1])
        first = float(gram[1, 1] - gram[0, 1]) / slope if slope > 0 else 0.5
        first = min(max(first, 0.0), 1.0)
        return torch.tensor([first, 1.0 - first], dtype=torch.float64)
    scale = float(gram.diagonal().max())
    if scale <= 0:
        return torch.full((len(gram),), 1 / len(gram), dtype=torch.float64)
    x = _non_negative(gram / scale + 1.0)
    return x / x.sum()


def _non_negative(matrix: Tensor, tolerance: float = 1e-12) -> Tensor:
    """Lawson and Hanson: min ½ xᵀKx - 1ᵀx over x ≥ 0. matrix: K, [N, N] PSD; float64 [N]."""
    count = len(matrix)
    x = torch.zeros(count, dtype=torch.float64)
    active = torch.zeros(count, dtype=torch.bool)
    for _ in range(3 * count + 30):  # finite in theory; the bound only guards against rounding
        slack = torch.where(active, -math.inf, 1.0 - matrix @ x)
        best = int(slack.argmax())
        if float(slack[best]) <= tolerance:
            break
        active[best] = True
        while True:
            block = matrix[active][:, active]
            step = torch.zeros_like(x)
            step[active] = symmetric_pinv(block).sum(dim=1)
            blocked = active & (step <= tolerance)
            if not bool(blocked.any()):
                x = step
                break
            # Walk towards the free optimum until the first weight reaches zero, then drop it.
            reach = (x[blocked] / (x[blocked] - step[blocked]).clamp(min=1e-300)).min()
            x = x + float(reach) * (step - x)
            active &= x > tolerance
            x = torch.where(active, x, 0.0)
    return x


def min_norm_weights(gram: Tensor) -> list[float]:
    """Merge weights of the MGDA direction, from the whole model's Gram matrix [N, N] alone.

    v minimises ‖Σ v_i ΔW_i/‖ΔW_i‖‖ over the simplex. The merged change points along
    d = Σ v_i ΔW_i/‖ΔW_i‖, for which ⟨d, ΔW_i⟩ ≥ ‖d‖² ‖ΔW_i‖: it opposes no expert. So that the result is
    still a mean of the experts, the returned weights are w_i = (v_i/‖ΔW_i‖) / Σ_j (v_j/‖ΔW_j‖). (For two
    experts v is (½, ½) at any angle, and w balances the norms.) An expert whose change is zero gets weight
    0; if all changes are zero, the weights are uniform.
    """
    norms = gram.double().diagonal().clamp(min=0).sqrt()
    moving = (norms > 0).nonzero().flatten()
    if len(moving) == 0:
        return [1 / len(gram)] * len(gram)
    point = min_norm_point(cosines(gram.double()[moving][:, moving]))
    weights = torch.zeros(len(gram), dtype=torch.float64)
    weights[moving] = point / norms[moving]
    return [float(w) for w in weights / weights.sum()]


def simplex_lattice(count: int, divisions: int) -> Iterator[tuple[float, ...]]:
    """Every way to split 1 into `count` shares that are multiples of 1/divisions (Das-Dennis).

    Yields C(count + divisions - 1, divisions) points, ordered by descending first share. Raises ValueError
    when either number is below 1.
    """
    if count < 1 or divisions < 1:
        raise ValueError(f"a lattice has at least 1 share and 1 division, not {count}, {divisions}")
    slots = divisions + count - 1
    # Stars and bars; choosing the bars from the right end first makes the first share descend.
    for bars in combinations(range(slots), count - 1):
        cuts = [-1, *bars, slots]
        shares = [b - a - 1 for a, b in pairwise(cuts)]
        yield tuple(share / divisions for share in reversed(shares))


@dataclass(frozen=True)
class BestWeights:
    """The result of a search: the best weights and their value."""

    weights: list[float]
    value: float


def search_weights(
    evaluate: Callable[[Sequence[float]], float], count: int, divisions: int = 4
) -> BestWeights:
    """argmax of evaluate(weights) over the simplex lattice.

    Args:
        evaluate: the value of some weights, such as a validation hypervolume.
        count: N.
        divisions: see `simplex_lattice`.

    Returns:
        The best weights; of equal values the most even weights.

    Raises:
        ValueError: evaluate returns NaN.
    """
    best = BestWeights([], -math.inf)
    even = math.inf
    for weights in simplex_lattice(count, divisions):
        value = float(evaluate(weights))
        if math.isnan(value):
            raise ValueError(f"the search's evaluation of weights {list(weights)} is not a number")
        unevenness = sum(w * w for w in weights)
        if value > best.value or (value == best.value and unevenness < even) or not best.weights:
            best, even = BestWeights(list(weights), value), unevenness
    return best
