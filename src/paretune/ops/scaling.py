"""Put scores of different rewards on one scale, by constants that were measured on the base's samples.

    z        (score - mean) / standard deviation
    minmax   0 at the base's least score, 1 at its greatest
    rank     the share of the base's samples that score less, by linear interpolation between quantiles

What scores beyond the base's samples goes on in a straight line: there is always something to learn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

POINTS = 65  # quantiles that are kept for `rank`


@dataclass(frozen=True)
class Scaling:
    """A way, and the constants of one reward: those of its scores on the base's samples."""

    kind: str
    mean: float
    std: float
    quantiles: tuple[float, ...]

    def __call__(self, scores: torch.Tensor) -> torch.Tensor:
        """The scores on the scale, of the same shape."""
        low, high = self.quantiles[0], self.quantiles[-1]
        if self.kind == "z":
            return (scores - self.mean) / self.std
        line = (scores - low) / (high - low)
        return line if self.kind == "minmax" else torch.where(
            (scores >= low) & (scores <= high), self._rank(scores), line
        )  # fmt: skip

    def _rank(self, scores: torch.Tensor) -> torch.Tensor:
        """Shares between the quantiles; of a score that many samples have, the middle of theirs."""
        points = torch.tensor(self.quantiles, dtype=torch.float64)
        shares = torch.linspace(0, 1, len(points), dtype=torch.float64)
        values = scores.double().contiguous()
        left = torch.searchsorted(points, values).clamp(0, len(points) - 1)
        right = (torch.searchsorted(points, values, right=True) - 1).clamp(0, len(points) - 1)
        below = (left - 1).clamp(min=0)
        step = (points[left] - points[below]).clamp(min=1e-300)
        between = shares[below] + (shares[left] - shares[below]) * (values - points[below]) / step
        on = points[left] == values
        return torch.where(on, (shares[left] + shares[right]) / 2, between).to(scores.dtype)


def constants(scores: torch.Tensor) -> dict[str, Any]:
    """The constants of one reward's scores [N] on the base's samples, for every way."""
    values = scores.double()
    points: Any = torch.quantile(values, torch.linspace(0, 1, POINTS, dtype=torch.float64))
    return {
        "mean": float(values.mean()), "std": float(values.std(unbiased=False)),
        "quantiles": points.tolist(), "samples": len(values),
    }  # fmt: skip


def scaling(kind: str, measured: Mapping[str, Any]) -> Scaling:
    """The scaling of one reward by its measured constants."""
    quantiles = tuple(float(q) for q in measured["quantiles"])
    return Scaling(kind, float(measured["mean"]), float(measured["std"]), quantiles)
