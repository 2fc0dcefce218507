"""The decompositions that ops uses, with types, which torch.linalg does not have."""
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor


def thin_qr(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Q [m, k] with orthonormal columns and R [k, n] upper triangular, k = min(m, n)."""
    return cast("tuple[Tensor, Tensor]", torch.linalg.qr(matrix))


def thin_svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U [m, k], S [k] greatest first, Vᵀ [k, n], k = min(m, n)."""
    return cast("tuple[Tensor, Tensor, Tensor]", torch.linalg.svd(matrix, full_matrices=False))


def symmetric_pinv(matrix: Tensor) -> Tensor:
    """The pseudo-inverse of a symmetric matrix [n, n]."""
    return cast("Tensor", torch.linalg.pinv(matrix, hermitian=True))


def frobenius(matrix: Tensor) -> float:
    """‖X‖_F, accumulated in float64."""
    return float(cast("Tensor", torch.linalg.vector_norm(matrix, dtype=torch.float64)))
