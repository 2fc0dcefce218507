"""The reducers: one function per method, which merges the N low-rank changes of one module into one.

All have the form `reducer(deltas, weights, **options) -> LowRank`. deltas holds N LowRanks [m, n], or None
for an expert that lacks the module, which counts as zero. weights holds N non-negative numbers, which are
normalised to sum to one. Reducers that are linear in the weights have the option `normalise`: when it is off,
the weights are used unchanged, signs included. `merging.REDUCERS` is the table of their names.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .linalg import thin_qr
from .lowrank import LowRank, as_given, compress, normalised, stack
from .merge_options import fit

Deltas = Sequence[LowRank | None]


def _shares(weights: Sequence[float], count: int, normalise: bool) -> list[float]:
    return normalised(weights, count) if normalise else as_given(weights, count)


def exact(deltas: Deltas, weights: Sequence[float], *, normalise: bool = True) -> LowRank:
    """Σ w_i ΔW_i without loss, by stacking the factors: rank Σ r_i."""
    return stack(deltas, _shares(weights, len(deltas), normalise))


def compressed(
    deltas: Deltas,
    weights: Sequence[float],
    *,
    rank: int | None = None,
    energy: float | None = None,
    normalise: bool = True,
) -> LowRank:
    """The exact sum cut to a rank, or to the least rank that keeps an energy (see `compress`)."""
    return compress(exact(deltas, weights, normalise=normalise), rank, energy).delta


def factor(deltas: Deltas, weights: Sequence[float]) -> LowRank:
    """(Σ w_i B_i)(Σ w_i A_i), which is what averaging adapter files entry by entry computes.

    It differs from the exact sum by Σ w_i (B_i - B̄)(A_i - Ā). As the scale s is folded into B, this is
    s·B̄Ā when all experts share s. Absent modules count as zero factors. Raises ValueError when the ranks
    differ, because factors of different ranks have no average.
    """
    shares = normalised(weights, len(deltas))
    used = [(d, w) for d, w in zip(deltas, shares, strict=True) if d is not None]
    ranks = sorted({d.rank for d, _ in used})
    if len(ranks) != 1:
        raise ValueError(
            f"factor averaging needs equal ranks, these are {ranks}; use the method exact"
            if ranks
            else "no delta to average: the module is absent everywhere"
        )
    if len({d.shape for d, _ in used}) != 1:
        raise ValueError(f"shapes differ: {sorted({d.shape for d, _ in used})}")
    mean_b = torch.stack([d.B.float() * w for d, w in used]).sum(dim=0)
    return LowRank(mean_b, torch.stack([d.A.float() * w for d, w in used]).sum(dim=0))


def from_dense(dense: Tensor) -> LowRank:
    """Factors of a dense matrix [m, n] without loss: the matrix and the identity of its smaller side.

    The rank is min(m, n): give the merge a rank or an energy to get a small file.
    """
    rows, columns = dense.shape
    eye = torch.eye(min(rows, columns), dtype=dense.dtype, device=dense.device)
    return LowRank(dense, eye) if columns <= rows else LowRank(eye, dense)


def _dense(delta: LowRank) -> Tensor:
    """ΔW itself. Its factors may be finite where it is not, and infinity has neither sign nor mean."""
    dense = delta.dense()
    if not bool(torch.isfinite(dense).all()):
        raise ValueError("an adapter's change leaves the range of float32")
    return dense


def ties(deltas: Deltas, weights: Sequence[float], *, density: float = 0.2) -> LowRank:
    """TIES: trim each ΔW_i to its top `density` share by magnitude, elect signs, disjoint mean.

    Each module is trimmed separately (the paper trims the vector of all parameters). The sign of Σ_i τ_i is
    elected for each entry, and the entry is the weighted mean of the τ_i with that sign. With equal weights
    this equals peft's `ties` on dense deltas with every weight 1. The N dense matrices of one module are
    formed. Yadav et al. 2023.
    """
    density = fit("density", density)
    shares = normalised(weights, len(deltas))
    trimmed: list[Tensor] = []
    kept: list[float] = []
    for delta, share in zip(deltas, shares, strict=True):
        if delta is not None and share > 0:
            dense = _dense(delta)
            keep = max(1, int(density * dense.numel()))
            least = dense.abs().flatten().kthvalue(dense.numel() - keep + 1).values
            trimmed.append(torch.where(dense.abs() >= least, dense, 0.0))
            kept.append(share)
    if not trimmed:
        return exact(deltas, weights)
    elected = torch.where(torch.stack(trimmed).sum(dim=0) >= 0, 1.0, -1.0)
    total, mass = torch.zeros_like(elected), torch.zeros_like(elected)
    for dense, share in zip(trimmed, kept, strict=True):
        agrees = (dense.sign() == elected).to(dense.dtype)
        total += share * agrees * dense
        mass += share * agrees
    return from_dense(torch.where(mass > 0, total / mass.clamp(min=1e-30), 0.0))


def _masked(delta: LowRank, density: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    dense = _dense(delta)
    mask = torch.bernoulli(torch.full_like(dense, density), generator=generator)
    return dense, dense * mask


def dare(
    deltas: Deltas,
    weights: Sequence[float],
    *,
    density: float = 0.5,
    seed: int = 0,
    normalise: bool = True,
) -> LowRank:
    """DARE: drop each entry with p = 1 - density, rescale by 1/(1 - p), and sum with the weights.

    Dense matrices are formed, as in `ties`. The masks depend on `seed` alone; they are drawn expert after
    expert. Yu et al. 2024.
    """
    density = fit("density", density)
    generator = torch.Generator().manual_seed(seed)
    total: Tensor | None = None
    for delta, share in zip(deltas, _shares(weights, len(deltas), normalise), strict=True):
        if delta is not None:
            kept = _masked(delta, density, generator)[1].mul_(share / density)
            total = kept if total is None else total.add_(kept)
    return exact(deltas, weights, normalise=normalise) if total is None else from_dense(total)


def dare_q(
    deltas: Deltas,
    weights: Sequence[float],
    *,
    density: float = 0.5,
    seed: int = 0,
    q: float | None = None,
    normalise: bool = True,
) -> LowRank:
    """DAREx-q: as `dare`, but the kept entries are rescaled by 1/q, with a q for each module.

    The paper chooses q by the change of outputs on data. A merge has no data, so the inputs are V, an
    orthonormal basis of the row space of ΔW: the inputs for which ΔW gives any output. Then
    1/q = ⟨(M∘ΔW)V, ΔWV⟩ / ‖(M∘ΔW)V‖² minimises ‖((M∘ΔW)/q - ΔW)V‖_F in closed form. It tends to 1/(1 - p) for
    r ≪ n, and shrinks where the noise of the mask is visible. Dense matrices are formed, as in `ties`. Deng
    et al. 2024.

    Args:
        deltas: N changes.
        weights: N weights.
        density: the share of entries that are kept.
        seed: of the masks.
        q: the same q for all modules.
        normalise: off, the weights are used unchanged.
    """
    density = fit("density", density)
    q = None if q is None else fit("q", q)
    generator = torch.Generator().manual_seed(seed)
    total: Tensor | None = None
    for delta, share in zip(deltas, _shares(weights, len(deltas), normalise), strict=True):
        if delta is not None:
            dense, kept = _masked(delta, density, generator)
            basis = thin_qr(delta.A.to(dense.dtype).T)[0]
            seen, wanted = (kept @ basis).double(), (dense @ basis).double()
            size = float(seen.square().sum())
            scale = 1 / q if q is not None else float((seen * wanted).sum()) / (size or 1.0)
            kept.mul_(share * scale)
            total = kept if total is None else total.add_(kept)
    return exact(deltas, weights, normalise=normalise) if total is None else from_dense(total)


def nesterov(
    deltas: Deltas,
    weights: Sequence[float],
    *,
    state: LowRank | None = None,
    momentum: float = 0.9,
    outer_lr: float = 0.7,
) -> LowRank:
    """An outer Nesterov step across rounds, with the outer gradient -ΔW̄ (DiLoCo).

    M_k = μ M_{k-1} + ΔW̄_k and the change is η (ΔW̄_k + μ M_k) = η ((1 + μ) ΔW̄_k + μ² M_{k-1}). At μ = 0 and
    η = 1 it is `exact`.

    Args:
        deltas: N changes.
        weights: N weights of ΔW̄_k.
        state: M_{k-1}; None in the first round. `outer_momentum` computes M_k.
        momentum: μ.
        outer_lr: η.
    """
    momentum, outer_lr = fit("momentum", momentum), fit("outer_lr", outer_lr)
    shares = [outer_lr * (1 + momentum) * w for w in normalised(weights, len(deltas))]
    return stack([*deltas, state], [*shares, outer_lr * momentum**2])


def outer_momentum(
    deltas: Deltas, weights: Sequence[float], state: LowRank | None, momentum: float = 0.9
) -> LowRank:
    """M_k = μ M_{k-1} + ΔW̄_k as factors, whose rank is limited to min(m, n) without loss."""
    total = stack([*deltas, state], [*normalised(weights, len(deltas)), momentum])
    limit = min(total.shape)
    return total if total.rank <= limit else compress(total, rank=limit).delta
