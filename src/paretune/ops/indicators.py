"""Quality of fronts: hypervolume and epsilon indicator of sets of models, with bootstrap intervals.

A point is one model: for every reward its values, float [S, P], over S runs (training seeds) and P held-out
prompts, which are the same for every model. A front is a list of points. The bootstrap resamples prompts (the
same ones for all fronts) and runs (separately for each front) and computes everything again. Rewards are
scaled to [0, 1] by their range; a reward without a range is not scaled.
"""
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# moocore ships no types.

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import moocore
import numpy as np

Point = Mapping[str, np.ndarray]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """One reward as an axis of the front. range: may be infinite. reference: the value of the worst point."""

    name: str
    range: tuple[float, float]
    higher_is_better: bool
    reference: float

    def unit(self, value: float) -> float:
        """The value scaled so that greater is better, from 0 to 1 over a bounded range."""
        low, high = self.range
        if math.isfinite(low) and math.isfinite(high) and high > low:
            share = (value - low) / (high - low)
            return share if self.higher_is_better else 1 - share
        return value if self.higher_is_better else -value


@dataclass(frozen=True)
class Quality:
    """The indicators of a front and their 95 % bootstrap intervals.

    hypervolume: between the front and the reference point; greater is better.
    epsilon: the additive epsilon indicator, the least amount by which the front must be raised to cover the
    best points of all fronts; 0 is best.
    margin: this hypervolume minus that of the front compared with; None for that front.
    """

    hypervolume: float
    hypervolume_interval: Interval
    epsilon: float
    epsilon_interval: Interval
    margin: float | None = None
    margin_interval: Interval | None = None
    margin_stderr: float | None = None


def qualities(
    fronts: Mapping[str, Sequence[Point]],
    axes: Sequence[Axis],
    against: str | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Quality]:
    """The quality of every front.

    Args:
        fronts: the points of each front, by name.
        axes: the rewards.
        against: the front to compare hypervolumes with; no margins when None.
        draws: bootstrap samples.
        seed: of the bootstrap.
    """
    generator = np.random.default_rng(seed)
    exact = _measure(_means(fronts, axes, None), axes)
    sampled = [_measure(_means(fronts, axes, generator), axes) for _ in range(draws)]
    measured = {}
    for name, (volume, epsilon) in exact.items():
        volumes = np.array([s[name][0] for s in sampled])
        margin: dict[str, object] = {}
        if against is not None and against in exact and name != against:
            gaps = volumes - np.array([s[against][0] for s in sampled])
            margin = {
                "margin": volume - exact[against][0],
                "margin_interval": interval(gaps),
                "margin_stderr": float(gaps.std(ddof=1)),
            }
        epsilons = np.array([s[name][1] for s in sampled])
        measured[name] = Quality(
            volume, interval(volumes), epsilon, interval(epsilons), **margin  # type: ignore[arg-type]
        )
    return measured


def interval(values: np.ndarray, level: float = 0.95) -> Interval:
    """The percentile interval of bootstrap values."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _means(
    fronts: Mapping[str, Sequence[Point]], axes: Sequence[Axis], generator: np.random.Generator | None
) -> dict[str, np.ndarray]:
    """The scaled mean rewards of each front, [points, R]; resampled if a generator is given."""
    first = next(point for points in fronts.values() for point in points)
    prompts = {a.name: _draw(generator, first[a.name].shape[1]) for a in axes}
    table = {}
    for name, points in fronts.items():
        runs = _draw(generator, points[0][axes[0].name].shape[0])
        table[name] = np.array(
            [[a.unit(float(p[a.name][runs][:, prompts[a.name]].mean())) for a in axes] for p in points]
        )
    return table


def _draw(generator: np.random.Generator | None, count: int) -> np.ndarray:
    return np.arange(count) if generator is None else generator.integers(0, count, count)


def _measure(
    means: Mapping[str, np.ndarray], axes: Sequence[Axis]
) -> dict[str, tuple[float, float]]:
    """(hypervolume, epsilon) of every front; epsilon is relative to the best points of all fronts."""
    reference = np.array([a.unit(a.reference) for a in axes])
    best = moocore.filter_dominated(np.concatenate(list(means.values())), maximise=True)
    return {
        name: (
            float(moocore.hypervolume(points, ref=reference, maximise=True)),
            float(moocore.epsilon_additive(points, ref=best, maximise=True)),
        )
        for name, points in means.items()
    }
