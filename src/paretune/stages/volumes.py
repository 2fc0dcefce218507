"""Hypervolumes of mean rewards, each reward scaled to its range."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import moocore
import numpy as np

from ..config import RunConfig
from ..rewards.base import load_reward


@dataclass(frozen=True)
class Scale:
    """ranges: reward -> least and greatest value. signs: 1 where more is better, else -1."""

    ranges: dict[str, tuple[float, float]]
    signs: dict[str, float]

    def reference(self, models: Iterable[Mapping[str, float]]) -> dict[str, float]:
        """The worst end of a bounded reward's range; below the worst model for an unbounded one.

        models: the mean of every reward, one mapping a model.
        """
        means = list(models)
        point = {}
        for name, bounds in self.ranges.items():
            if all(math.isfinite(b) for b in bounds):
                point[name] = bounds[0] if self.signs[name] > 0 else bounds[1]
                continue
            values = [self.signs[name] * m[name] for m in means]
            worst = min(values) - 0.1 * (max(values) - min(values)) - 1e-6
            point[name] = self.signs[name] * worst
        return point

    def hypervolume(self, means: Mapping[str, float], reference: Mapping[str, float]) -> float:
        """Volume between the reference point and one model's mean rewards, ranges scaled to 1."""
        point = [[self.signs[n] * self._unit(n, means[n]) for n in self.ranges]]
        worst = [self.signs[n] * self._unit(n, reference[n]) for n in self.ranges]
        return float(moocore.hypervolume(np.array(point), ref=np.array(worst), maximise=True))

    def _unit(self, name: str, value: float) -> float:
        """Where a bounded reward lies in its range; an unbounded one as it is."""
        low, high = self.ranges[name]
        if math.isfinite(low) and math.isfinite(high) and high > low:
            return (value - low) / (high - low)
        return value


def scale_of(config: RunConfig) -> Scale:
    """The ranges and directions that a run's rewards declare."""
    rewards = {n: load_reward(r.reward, name=n, **r.options) for n, r in config.rewards.items()}
    return Scale(
        {name: (reward.range[0], reward.range[1]) for name, reward in rewards.items()},
        {name: 1.0 if reward.higher_is_better else -1.0 for name, reward in rewards.items()},
    )
