"""The measured front of a run: the point of every model, and the place of the sliders' setting among them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import Delaunay, QhullError

from ..records.read import read_evaluation, read_summary
from ..types import ParetuneError

# Measured model -> the method of the page that draws it. `expert:R` and `rate:R` are the models at one
# reward.
DRAWN_BY = {"mapreduce": "mapreduce", "rewarded_soup": "mix", "expert": "mix", "rate": "rate",
            "conditioned": "conditioned"}  # fmt: skip
NEAR = 0.01  # preferences that differ by no more count as the same, because a slider has steps


@dataclass(frozen=True)
class Point:
    """A measured model. drawn_by: the method of the page that draws it, None if there is none.

    preference: one weight for each reward. values: one mean for each reward. best: whether no other model is
    better in every reward.
    """

    name: str
    drawn_by: str | None
    preference: tuple[float, ...]
    values: tuple[float, ...]
    best: bool = False


@dataclass(frozen=True)
class Place:
    """The place of a setting. nearest: the number of a point. measured: whether this setting was measured."""

    values: tuple[float, ...]
    nearest: int
    measured: bool


@dataclass(frozen=True)
class Front:
    """rewards: the axes. higher: whether more of each is better."""

    rewards: tuple[str, ...]
    higher: tuple[bool, ...]
    points: tuple[Point, ...]

    def place(self, method: str, preference: tuple[float, ...]) -> Place | None:
        """The place of a setting among the measured points of its method, linear between them.

        None if no point of the method was measured.
        """
        candidates = [i for i, p in enumerate(self.points) if p.drawn_by == method]
        if not candidates:
            return None
        away = [_distance(self.points[i].preference, preference) for i in candidates]
        nearest = candidates[int(np.argmin(away))]
        point = self.points[nearest]
        if near(point.preference, preference):
            return Place(point.values, nearest, True)
        values = _between([self.points[i] for i in candidates], preference)
        return Place(values or point.values, nearest, False)


def near(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether two preferences count as the same."""
    return _distance(a, b) <= NEAR


def read_front(run_folder: Path, weights: dict[str, float]) -> Front:
    """The front from summary.json, and from the grid of preferences if the run measured one.

    weights: reward -> its weight in the recipe.
    """
    summary = read_summary(run_folder / "summary.json")
    rewards = tuple(summary["rewards"])
    if rewards != tuple(weights):
        raise ParetuneError(f"{run_folder}/summary.json names other rewards than config.yaml; resume the run")
    directions = summary.get("higher_is_better", {})
    higher = tuple(bool(directions.get(name, True)) for name in rewards)
    points = [
        Point(name, DRAWN_BY.get(name.split(":")[0]), _preference(name, weights),
              tuple(means[r] for r in rewards))
        for name, means in summary["methods"].items()
        if "@" not in name and all(means.get(r) is not None for r in rewards)
    ]  # fmt: skip
    points += _grid(read_evaluation(run_folder / "evaluation.jsonl"), rewards)
    return Front(rewards, higher, tuple(_ranked(points, higher)))


def _preference(name: str, weights: dict[str, float]) -> tuple[float, ...]:
    head, _, reward = name.partition(":")
    if head in {"expert", "rate"} and reward in weights:
        return tuple(float(r == reward) for r in weights)
    return tuple(weights.values())


def _grid(rows: Sequence[dict[str, Any]], rewards: Sequence[str]) -> list[Point]:
    """The models of the menus at the grid of preferences: their rows say `lattice`."""
    values: dict[tuple[str, tuple[float, ...]], dict[str, list[float]]]
    values = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.get("lattice") and row.get("kind", "reward") == "reward":
            member = str(row["method"]).split("@")[0], tuple(map(float, row["preference"]))
            values[member][row["reward"]].append(row["value"])
    return [
        Point(f"{name} at another preference", DRAWN_BY.get(name), preference,
              tuple(float(np.mean(found[r])) for r in rewards))
        for (name, preference), found in values.items()
        if all(found.get(r) for r in rewards)
    ]  # fmt: skip


def _ranked(points: Sequence[Point], higher: Sequence[bool]) -> list[Point]:
    """The points. `best` is set for those that no other point beats in every reward."""
    signs = np.where(higher, 1.0, -1.0)
    table = np.array([p.values for p in points]).reshape(len(points), len(higher)) * signs
    beaten = [bool(np.any(np.all(table > row, axis=1))) for row in table]
    return [
        Point(p.name, p.drawn_by, p.preference, p.values, not worse)
        for p, worse in zip(points, beaten, strict=True)
    ]


def _distance(a: Sequence[float], b: Sequence[float]) -> float:
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


def _between(points: Sequence[Point], preference: Sequence[float]) -> tuple[float, ...] | None:
    """Interpolate values linearly within the triangle of measured points around a preference.

    None if the preference lies outside all triangles.
    """
    where = np.array([p.preference[:-1] for p in points])
    values = np.array([p.values for p in points])
    wanted = np.array(preference[:-1])
    if where.shape[1] == 1:
        order = np.argsort(where[:, 0])
        if len(points) < 2 or not where.min() <= wanted[0] <= where.max():
            return None
        return tuple(float(np.interp(wanted[0], where[order, 0], column[order])) for column in values.T)
    try:
        mesh = Delaunay(where)
    except (QhullError, ValueError):  # there are too few points, or all are on a line
        return None
    cell = int(mesh.find_simplex(wanted, tol=1e-6))
    if cell < 0:
        return None
    part = mesh.transform[cell]
    most = part[:-1] @ (wanted - part[-1])
    shares = np.append(most, 1 - most.sum())
    return tuple(float(v) for v in shares @ values[mesh.simplices[cell]])
