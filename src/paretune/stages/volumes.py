"""The hypervolume of one model's mean rewards, each reward scaled to its range."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import moocore
import numpy as np

from ..config import RunConfig
from ..ops.indicators import Axis
from ..rewards.base import reward_of


@dataclass(frozen=True)
class Space:
    """The space of mean rewards. ranges: reward -> its least and greatest value. rising: is more better?"""

    ranges: dict[str, tuple[float, float]]
    rising: dict[str, bool]

    def reference(self, models: Iterable[Mapping[str, float]]) -> dict[str, float]:
        """The point that hypervolumes are measured from.

        For a bounded reward it is the worst end of the range, for an unbounded one a value somewhat worse
        than that of the worst model. models: one mapping from reward to mean for each model.
        """
        means = list(models)
        point = {}
        for name, bounds in self.ranges.items():
            sign = 1.0 if self.rising[name] else -1.0
            if all(math.isfinite(b) for b in bounds):
                point[name] = bounds[0] if sign > 0 else bounds[1]
                continue
            values = [sign * m[name] for m in means]
            point[name] = sign * (min(values) - 0.1 * (max(values) - min(values)) - 1e-6)
        return point

    def hypervolume(self, means: Mapping[str, float], reference: Mapping[str, float]) -> float:
        """The volume between the reference point and one model's mean rewards, each range scaled to 1."""
        axes = [Axis(n, self.ranges[n], self.rising[n], reference[n]) for n in self.ranges]
        point = np.array([[axis.unit(means[axis.name]) for axis in axes]])
        worst = np.array([axis.unit(axis.reference) for axis in axes])
        return float(moocore.hypervolume(point, ref=worst, maximise=True))


def space_of(config: RunConfig) -> Space:
    """The space of the ranges and directions that a run's rewards declare."""
    rewards = {n: reward_of(r, n) for n, r in config.rewards.items()}
    return Space(
        {name: (reward.range[0], reward.range[1]) for name, reward in rewards.items()},
        {name: reward.higher_is_better for name, reward in rewards.items()},
    )
