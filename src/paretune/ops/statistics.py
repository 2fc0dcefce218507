"""Figures with their count and interval, and the few statistics that analyses of preferences need.

Intervals are 95 % percentile intervals of a bootstrap over prompts: what belongs to one prompt is drawn
together, because its pairs are not independent. Shapes: N rows; group [N]: the number of each row's prompt.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import cast

import torch
from torch import Tensor

RESAMPLES, SLOW_RESAMPLES = 2000, 200
Statistic = Callable[[Tensor], float]


@dataclass(frozen=True)
class Figure:
    """A value, of how many rows it is, and its 95 % interval.

    NaN where there is nothing to compute it of; one prompt alone, or fewer prompts than a statistic asks for,
    have a value and no interval.
    """

    value: float
    count: int
    low: float
    high: float

    def to_json(self) -> dict[str, float | int | None]:
        """Plain data; NaN, which JSON lacks, is null."""
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(self).items()}


def mean_figure(values: Tensor, group: Tensor, seed: int = 0) -> Figure:
    """The mean of N values, such as a share of rows that are true."""
    if not len(values):
        return Figure(math.nan, 0, math.nan, math.nan)
    numbers = values.double()
    place = _places(group)[1]
    sums = torch.zeros(int(place.max()) + 1, dtype=torch.float64).index_add(0, place, numbers)
    if len(sums) == 1:
        return Figure(float(numbers.mean()), len(values), math.nan, math.nan)
    counts = torch.zeros_like(sums).index_add(0, place, torch.ones_like(numbers))
    drawn = _drawn(len(sums), RESAMPLES, seed)
    low, high = _interval((drawn @ sums) / (drawn @ counts))
    return Figure(float(numbers.mean()), len(values), low, high)


def figure(group: Tensor, statistic: Statistic, seed: int = 0, least: int = 2) -> Figure:
    """Any statistic of N rows.

    Args:
        group: the prompt of each row, [N].
        statistic: the indices of some rows, which may repeat -> a number.
        seed: of the resamples.
        least: the fewest prompts that have an interval.
    """
    if not len(group):
        return Figure(math.nan, 0, math.nan, math.nan)
    names, place = _places(group)
    if len(names) < max(2, least):
        return Figure(statistic(torch.arange(len(group))), len(group), math.nan, math.nan)
    members = [(place == i).nonzero().flatten() for i in range(len(names))]
    found: list[float] = []
    for counts in _drawn(len(names), SLOW_RESAMPLES, seed):
        rows = torch.cat([members[i].repeat(int(counts[i])) for i in range(len(names))])
        value = statistic(rows)
        if not math.isnan(value):  # a draw may hold one side alone
            found.append(value)
    low, high = _interval(torch.tensor(found, dtype=torch.float64))
    return Figure(statistic(torch.arange(len(group))), len(group), low, high)


def _places(values: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct values in order, and the number of each row's value among them."""
    return cast("tuple[Tensor, Tensor]", torch.unique(values, return_inverse=True))  # pyright: ignore[reportUnknownMemberType]


def _drawn(groups: int, resamples: int, seed: int) -> Tensor:
    """How often each group is in each resample, [resamples, groups]."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(groups, (resamples, groups), generator=generator)
    return torch.zeros(resamples, groups, dtype=torch.float64).scatter_add(
        1, rows, torch.ones(rows.shape, dtype=torch.float64)
    )


def _interval(values: Tensor) -> tuple[float, float]:
    if not len(values):
        return math.nan, math.nan
    ends = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=torch.float64))
    return float(ends[0]), float(ends[1])


def ranks(values: Tensor) -> Tensor:
    """The ranks of N values from 1; equal values share the mean of their ranks."""
    names, place = _places(values)
    counts = torch.bincount(place, minlength=len(names)).double()
    return (counts.cumsum(0) - (counts - 1) / 2)[place]


def rank_correlation(x: Tensor, y: Tensor) -> float:
    """Spearman's; NaN where one of them does not vary."""
    a, b = (r - r.mean() for r in (ranks(x), ranks(y)))
    scale = float((a.square().sum() * b.square().sum()).sqrt())
    return float((a * b).sum()) / scale if scale else math.nan


# ---------------------------------------------------------------- how easily two sides are separated


def held_out_scores(x: Tensor, y: Tensor, group: Tensor, folds: int = 5, ridge: float = 1.0) -> Tensor:
    """What a ridge classifier says of rows that it was not trained on. [N].

    Args:
        x: [N, H]. Each column is standardised by the rows of training.
        y: 1 or -1, [N].
        group: rows of one prompt are in one fold.
        folds: at most so many; fewer where there are fewer prompts.
        ridge: the weight of the squared coefficients.
    """
    place = _places(group)[1]
    fold = place % min(folds, int(place.max()) + 1) if len(place) else place
    scores = torch.zeros(len(x), dtype=torch.float64)
    for k in range(folds):
        train, test = (fold != k).nonzero().flatten(), (fold == k).nonzero().flatten()
        if not len(train) or not len(test):
            continue  # one prompt alone: nothing to train on
        seen, sides = x[train].double(), y[train].double()
        mean, spread = seen.mean(0), seen.std(0, unbiased=False).clamp(min=1e-9)
        a = (seen - mean) / spread
        square = a.T @ a + ridge * torch.eye(a.shape[1], dtype=a.dtype)
        solved = torch.linalg.solve(square, a.T @ (sides - sides.mean()))  # pyright: ignore
        scores[test] = ((x[test].double() - mean) / spread) @ cast("Tensor", solved)
    return scores


def accuracy(scores: Tensor, y: Tensor) -> Tensor:
    """1 where the sign is right, 1/2 where there is none, else 0. [N]."""
    return (1 + (scores.sign() * y.double())) / 2


def area_under_curve(scores: Tensor, y: Tensor) -> float:
    """The share of pairs of a 1 and a -1 whose 1 scores more, ties counted half. NaN without one side."""
    positive = y > 0
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return math.nan
    return (float(ranks(scores)[positive].sum()) - n * (n + 1) / 2) / (n * m)


def fisher_ratio(scores: Tensor, y: Tensor) -> float:
    """(difference of the means)^2 / (sum of the variances) of the two sides' scores. NaN where undefined."""
    a, b = scores[y > 0], scores[y < 0]
    if not len(a) or not len(b):
        return math.nan
    spread = float(a.var(unbiased=False) + b.var(unbiased=False))
    gap = float((a.mean() - b.mean()).square())
    return gap / spread if spread else math.nan
