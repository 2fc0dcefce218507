"""Low-rank weight changes, and computations with them that need only their factors.

A LoRA expert changes a weight W [m, n] by ΔW = B A, with a rank r far below m and n. Everything here costs
O((m + n) r²) per module: only `LowRank.dense` forms an m x n matrix.

Shapes: m outputs, n inputs, rank r, N experts. An expert is a mapping module name -> LowRank; a module that
an expert lacks counts as zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .linalg import frobenius, thin_qr, thin_svd


@dataclass(frozen=True)
class LowRank:
    """ΔW = B @ A with the adapter's scale (alpha/r, or alpha/√r for rsLoRA) already folded into B.

    B: floating [m, r]. A: floating [r, n]. Rank 0 is the zero change.
    Raises ValueError when the factors are not matrices or do not fit together.
    """

    B: Tensor
    A: Tensor

    def __post_init__(self) -> None:
        if self.B.ndim != 2 or self.A.ndim != 2 or self.B.shape[1] != self.A.shape[0]:
            raise ValueError(
                f"factors do not fit: B is {list(self.B.shape)}, A is {list(self.A.shape)}; "
                "wanted [m, r] and [r, n]"
            )

    @property
    def rank(self) -> int:
        """r, the inner dimension (the true rank of ΔW may be lower)."""
        return self.B.shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n), the shape of ΔW."""
        return self.B.shape[0], self.A.shape[1]

    def dense(self) -> Tensor:
        """ΔW = B @ A as float32 [m, n] (float64 when B is float64)."""
        dtype = torch.float64 if self.B.dtype == torch.float64 else torch.float32
        return self.B.to(dtype) @ self.A.to(dtype)

    def norm(self) -> float:
        """‖ΔW‖_F, computed from the factors."""
        return math.sqrt(max(inner(self, self), 0.0))


# What an expert has changed: low-rank changes by module, or differences of whole weights by name.
Changes = dict[str, LowRank] | dict[str, Tensor]


@dataclass(frozen=True)
class Compressed:
    """A truncation. relative_error = ‖ΔW - delta‖_F / ‖ΔW‖_F (0 when ΔW is zero)."""

    delta: LowRank
    relative_error: float


def normalised(weights: Sequence[float], count: int) -> list[float]:
    """The weights divided by their sum.

    Raises ValueError unless there are `count` of them, finite, non-negative and not all zero.
    """
    if len(weights) != count:
        raise ValueError(f"{len(weights)} weights for {count} adapters; give one weight an adapter")
    for weight in weights:
        if not math.isfinite(weight) or weight < 0:
            raise ValueError(f"weight {weight} cannot be used; weights are finite and not negative")
    try:
        total = math.fsum(weights)
    except OverflowError:
        raise ValueError("the weights are too large to sum; give smaller ones") from None
    if total <= 0:
        raise ValueError("all weights are zero; at least one must be positive")
    return [weight / total for weight in weights]


def as_given(weights: Sequence[float], count: int) -> list[float]:
    """The weights unchanged, signs included: coefficients of a sum that need not be a mean.

    Raises ValueError unless there are `count` of them, finite and not all zero.
    """
    if len(weights) != count:
        raise ValueError(f"{len(weights)} weights for {count} adapters; give one weight an adapter")
    for weight in weights:
        if not math.isfinite(weight):
            raise ValueError(f"weight {weight} cannot be used; weights are finite")
    if not any(weights):
        raise ValueError("all weights are zero; at least one must not be")
    return [float(weight) for weight in weights]


def inner(x: LowRank, y: LowRank) -> float:
    """⟨X, Y⟩_F = Σ (B_xᵀ B_y) ∘ (A_x A_yᵀ), accumulated in float64.

    Raises ValueError when the shapes differ.
    """
    if x.shape != y.shape:
        raise ValueError(f"shapes differ: {x.shape} against {y.shape}")
    left = x.B.double().T @ y.B.double()
    right = x.A.double() @ y.A.double().T
    return float((left * right).sum())


def stack(deltas: Sequence[LowRank | None], weights: Sequence[float]) -> LowRank:
    """The exact Σ_i w_i ΔW_i: B = [w_1 B_1, .., w_N B_N], A = [A_1; ..; A_N], rank Σ r_i.

    The weights are used unchanged, signs included. A delta of None and a weight of zero add nothing to the
    rank. The result is float32, or float64 when any B is. Raises ValueError when all deltas are None or
    shapes differ.
    """
    if len(deltas) != len(weights):
        raise ValueError(f"{len(weights)} weights for {len(deltas)} deltas")
    present = [(d, w) for d, w in zip(deltas, weights, strict=True) if d is not None]
    if not present:
        raise ValueError("no delta to sum: the module is absent everywhere")
    rows, columns = present[0][0].shape
    for delta, _ in present:
        if delta.shape != (rows, columns):
            raise ValueError(f"shapes differ: {(rows, columns)} against {delta.shape}")
    wide = any(d.B.dtype == torch.float64 for d, _ in present)
    dtype = torch.float64 if wide else torch.float32
    used = [(d, w) for d, w in present if w != 0 and d.rank > 0]
    if not used:
        zero = present[0][0].B.new_zeros(0, dtype=dtype)
        return LowRank(zero.view(rows, 0), zero.view(0, columns))
    return LowRank(
        torch.cat([d.B.to(dtype) * w for d, w in used], dim=1),
        torch.cat([d.A.to(dtype) for d, _ in used], dim=0),
    )


def distance(x: LowRank, y: LowRank) -> float:
    """‖X - Y‖_F. Dense matrices are formed only when the two ranks add up to min(m, n) or more."""
    if x.rank + y.rank >= min(x.shape):
        return frobenius(x.dense() - y.dense())
    return stack([x, y], [1.0, -1.0]).norm()


def _square(delta: LowRank, dtype: torch.dtype) -> LowRank:
    """The same ΔW with an inner dimension of min(m, n), for factors with a larger one."""
    m, n = delta.shape
    eye = torch.eye(min(m, n), dtype=dtype, device=delta.B.device)
    dense = delta.dense()
    return LowRank(dense, eye) if n <= m else LowRank(eye, dense)


def _core(delta: LowRank) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Thin QR of both factors and the float64 SVD of their core: Q_B, U, S, Vᵀ, Q_A."""
    dtype = torch.float64 if delta.B.dtype == torch.float64 else torch.float32
    if delta.rank > min(delta.shape):
        delta = _square(delta, dtype)
    q_b, r_b = thin_qr(delta.B.to(dtype))
    q_a, r_a = thin_qr(delta.A.to(dtype).T)
    core = r_b.double() @ r_a.double().T
    if not bool(torch.isfinite(core).all()):
        raise ValueError("the factors hold values too large to decompose, or NaN")
    u, s, vt = thin_svd(core)
    return q_b, u, s, vt, q_a


def singular_values(delta: LowRank) -> Tensor:
    """The singular values of ΔW, greatest first: float64 [min(m, n, r)]."""
    if delta.rank == 0:
        return torch.zeros(0, dtype=torch.float64)
    return _core(delta)[2]


def rank_for_energy(values: Tensor, energy: float) -> int:
    """The least R with Σ_{i≤R} s_i² ≥ energy · Σ s_i². values: [k], greatest first."""
    squares = values.double().square()
    tail = squares.flip(0).cumsum(0).flip(0)  # tail[i] = the energy that is lost when i values are kept
    # The tail is summed from its small end so that energy = 1 loses nothing but rounding.
    allowed = (1.0 - energy) * tail[0] + 1e-14 * tail[0] if len(tail) else 0.0
    return int((tail > allowed).sum())


def compress(delta: LowRank, rank: int | None = None, energy: float | None = None) -> Compressed:
    """The best approximation of ΔW of a given rank, or of the least rank that keeps an energy.

    With B = Q_B R_B and Aᵀ = Q_A R_A, ΔW = Q_B (R_B R_Aᵀ) Q_Aᵀ: the SVD of the r x r core is ΔW's
    (Eckart-Young), at O((m + n) r²). Each factor gets √S. The entry of greatest magnitude of each left
    singular vector is made positive, so that the result does not depend on the LAPACK in use.

    Args:
        delta: ΔW.
        rank: at least 1.
        energy: the share of ‖ΔW‖²_F to keep, in (0, 1].

    Raises:
        ValueError: not exactly one of rank and energy is given, or it is out of range.
    """
    if (rank is None) == (energy is None):
        raise ValueError("give either a rank or an energy to compress to")
    if rank is not None and rank < 1:
        raise ValueError(f"rank {rank} cannot be used; it is at least 1")
    if energy is not None and not 0 < energy <= 1:
        raise ValueError(f"energy {energy} cannot be used; it lies in (0, 1]")
    if delta.rank == 0:
        return Compressed(delta, 0.0)
    q_b, u, s, vt, q_a = _core(delta)
    keep = min(rank, len(s)) if rank is not None else rank_for_energy(s, energy or 1.0)
    total = float(s.square().sum())
    error = math.sqrt(float(s[keep:].square().sum()) / total) if total > 0 else 0.0
    left, right = q_b.double() @ u[:, :keep], vt[:keep] @ q_a.double().T
    if keep:
        peak = left.gather(0, left.abs().argmax(dim=0, keepdim=True)).squeeze(0)
        sign = torch.where(peak < 0, -1.0, 1.0).to(left.dtype)
        root = s[:keep].sqrt()
        left, right = left * (sign * root), right * (sign * root).unsqueeze(1)
    return Compressed(LowRank(left.to(q_b.dtype), right.to(q_b.dtype)), error)


def modules_of(experts: Sequence[Mapping[str, LowRank]]) -> list[str]:
    """Every module that any expert has, in order of first appearance."""
    return list(dict.fromkeys(name for expert in experts for name in expert))


def gram(experts: Sequence[Mapping[str, LowRank]]) -> Tensor:
    """G_ij = Σ_modules ⟨ΔW_i, ΔW_j⟩_F over the union of modules: float64 [N, N], symmetric.

    Modules are looked up one at a time, so that a mapping that loads lazily holds only one in memory.
    """
    count = len(experts)
    total = torch.zeros(count, count, dtype=torch.float64)
    for name in modules_of(experts):
        deltas = [expert.get(name) for expert in experts]
        for i, x in enumerate(deltas):
            for j, y in enumerate(deltas[: i + 1]):
                if x is not None and y is not None:
                    total[i, j] += inner(x, y)
    return total + total.tril(-1).T


def cosines(gram: Tensor) -> Tensor:
    """The conflict matrix cos_ij = G_ij / √(G_ii G_jj), [N, N] in [-1, 1]; 0 for a zero expert."""
    norms = gram.diagonal().clamp(min=0).sqrt()
    scale = norms.unsqueeze(0) * norms.unsqueeze(1)
    return torch.where(scale > 0, gram / scale.clamp(min=1e-300), 0.0).clamp(-1, 1)


def spread_of_gram(gram: Tensor, weights: Sequence[float]) -> float:
    """max_i ‖ΔW_i - ΔW̄‖_F with ΔW̄ = Σ w_i ΔW_i: √(G_ii - 2(Gw)_i + wᵀGw). gram: [N, N]."""
    w = torch.tensor(normalised(weights, len(gram)), dtype=torch.float64)
    squares = gram.diagonal() - 2 * (gram @ w) + w @ gram @ w
    return math.sqrt(max(float(squares.max()), 0.0))


def spread(experts: Sequence[Mapping[str, LowRank]], weights: Sequence[float]) -> float:
    """d = max_i ‖ΔW_i - ΔW̄‖_F, computed from the Gram matrix; the weights are normalised.

    The ratio of the spreads of two rounds is the contraction rho_k, which the theory of MapReduce LoRA
    (arXiv 2511.20629) predicts to be below one.
    """
    return spread_of_gram(gram(experts), weights)
