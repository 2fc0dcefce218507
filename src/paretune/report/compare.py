"""`paretune compare`: runs of several seeds, methods or recipes as one table, from what they left.

A method's runs (the same method in several run folders) are its seeds. A run may be given a label,
LABEL=FOLDER: its methods are then called "LABEL METHOD", and runs of one label are pooled.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..ops.indicators import Axis, Point, interval, qualities
from ..ops.merge_options import hint
from ..records.labels import apart, judges_of
from ..records.read import read_evaluation, read_summary
from ..records.seal import check_run
from ..types import ParetuneError

SOUP = "rewarded_soup"  # what margins are measured from where nothing else is asked for
NEEDED = ("rewards", "rounds", "ranges", "reference_point", "budget")  # of a run's summary
Row = dict[str, Any]
# (method, preference or None for the method's own) -> reward -> prompt -> values
Table = dict[tuple[str, tuple[float, ...] | None], dict[str, dict[str, list[float]]]]


@dataclass(frozen=True)
class RunTables:
    """One run: its label, summary and evaluation."""

    name: str
    label: str
    summary: Row
    values: Table


def compare_runs(
    runs: Sequence[str], against: str | None = None, draws: int = 1000, verify: bool = False
) -> dict[str, Any]:
    """The comparison as plain data (docs/runs.md); `compare_table` and `write_comparison` show it.

    runs: folders, or LABEL=FOLDER. against: the method that hypervolumes are measured from; by default
    rewarded_soup, where a run has it. Raises ParetuneError for a folder without a finished run, one given
    twice, an unknown `against`, and for runs that were measured on different rewards or prompts.
    """
    tables = [_read(*_split(run), verify) for run in runs]
    if not tables:
        raise ParetuneError("nothing to compare: give at least one run")
    first = tables[0]
    _check_once(tables)
    _check_alike(tables)
    axes = _axes(tables)
    points = _points(tables)
    fronts: dict[str, list[Point]] = defaultdict(list)
    for (method, _), point in points.items():
        fronts[method].append(point)
    if against is not None and against not in fronts:
        raise ParetuneError(
            f"no run has the method {against}; there are {', '.join(fronts)}{hint(against, fronts)}"
        )
    against = against or (SOUP if SOUP in fronts else None)
    best = qualities(fronts, axes, against, draws)
    names = _score_names(tables, points)
    base = points.get(("base", None))
    methods = {}
    for method in fronts:
        point = points[method, None]
        methods[method] = {
            "runs": int(next(iter(point.values())).shape[0]),
            "samples": _budget(tables, method),
            "means": {n: float(point[n].mean()) for n in names if n in point},
            "stderr": {n: stderr(point[n]) for n in names if n in point},
            "gains": {n: gain(base[n], point[n], draws) for n in names if base and n in point and n in base},
            **asdict(best[method]),
            "front": [
                {"preference": preference, "means": {n: float(p[n].mean()) for n in names if n in p}}
                for (m, preference), p in points.items() if m == method
            ],
        }  # fmt: skip
    return {
        "runs": [t.name for t in tables],
        "rewards": list(first.summary["rewards"]),
        "judges": first.summary.get("judges", {}),
        "untargeted": [name for name in _untargeted(tables) if name in names],
        "reference_point": {a.name: a.reference for a in axes},
        "against": against,
        "methods": methods,
    }


def stderr(values: np.ndarray) -> float:
    """Standard error of a mean, values [S, P]: over runs, or over prompts where there is one run.

    Runs that are all the same, as those of the base are, count as one.
    """
    means = values.mean(axis=1) if (values != values[0]).any() else values[0]
    return float(means.std(ddof=1) / math.sqrt(len(means))) if len(means) > 1 else 0.0


def gain(base: np.ndarray, values: np.ndarray, draws: int, seed: int = 0) -> dict[str, Any]:
    """What a score gained over base, both [S, P]: mean, share of base, 95 % bootstrap interval, error.

    The bootstrap resamples runs and, for both alike, prompts; stderr is its standard deviation.
    """
    generator = np.random.default_rng(seed)
    gaps = values - base.mean(axis=0)
    sampled = []
    for _ in range(draws):
        runs = generator.integers(0, gaps.shape[0], gaps.shape[0])
        prompts = generator.integers(0, gaps.shape[1], gaps.shape[1])
        sampled.append(gaps[runs][:, prompts].mean())
    start, mean = float(base.mean()), float(gaps.mean())
    return {
        "mean": mean,
        "share": mean / start if start > 1e-9 else None,
        "interval": interval(np.array(sampled)),
        "stderr": float(np.std(sampled, ddof=1)),
    }


# ---------------------------------------------------------------- reading


def _split(run: str) -> tuple[str, str]:
    """(label, folder); a folder whose own path has an equals sign is a folder."""
    label, equals, folder = run.partition("=")
    return ("", run) if not equals or Path(run).exists() else (label, folder)


def _read(label: str, folder: str, verify: bool) -> RunTables:
    path = Path(folder)
    check_run(path, verify, ("summary.json", "evaluation.jsonl"))
    for name in ("summary.json", "evaluation.jsonl"):
        if not (path / name).exists():
            raise ParetuneError(f"{folder} holds no finished run: {name} is missing")
    summary = read_summary(path / "summary.json", ())
    lacking = [key for key in NEEDED if key not in summary]
    if lacking:
        raise ParetuneError(f"{folder} holds no finished run: its summary.json lacks {', '.join(lacking)}")
    rows = apart(read_evaluation(path / "evaluation.jsonl"))
    values = _values(label, summary, rows)
    summary["judges"] = judges_of(rows, summary.get("judges", {}))
    if not values:
        raise ParetuneError(f"{folder} holds no finished run: its evaluation.jsonl is empty")
    return RunTables(folder, label, summary, values)


def _values(label: str, summary: Row, rows: Sequence[Row]) -> Table:
    last = f"mapreduce@{len(summary['rounds'])}"
    values: Table = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for row in rows:
        method = row["method"]
        if method.startswith("round-"):  # an expert of one round, measured for the tax matrix alone
            continue
        name = "mapreduce" if method == last else method
        preference = tuple(row["preference"]) if row.get("lattice") else None
        full = f"{label} {name}" if label and name != "base" else name
        values[full, preference][row["reward"]][row["prompt"]].append(row["value"])
    return values


def _check_once(tables: Sequence[RunTables]) -> None:
    """A run given twice would count as two seeds."""
    seen: dict[Path, str] = {}
    for table in tables:
        place = Path(table.name).resolve()
        if place in seen:
            raise ParetuneError(f"{seen[place]} and {table.name} are the same run; give it once")
        seen[place] = table.name


def _check_alike(tables: Sequence[RunTables]) -> None:
    first = tables[0]
    for other in tables[1:]:
        if other.summary["rewards"] != first.summary["rewards"]:
            raise ParetuneError(
                f"{other.name} has the rewards {', '.join(other.summary['rewards'])} and {first.name} "
                f"has {', '.join(first.summary['rewards'])}: only runs of the same rewards compare"
            )
        for reward in first.summary["rewards"]:
            if _prompts(other, reward) != _prompts(first, reward):
                raise ParetuneError(
                    f"{other.name} was measured on other held-out prompts of {reward} than {first.name}; "
                    "run both with the same evaluate section"
                )


def _prompts(table: RunTables, reward: str) -> set[str]:
    return {prompt for (method, _), v in table.values.items() for prompt in v[reward]
            if "@" not in method}  # fmt: skip


def _axes(tables: Sequence[RunTables]) -> list[Axis]:
    """The rewards' ranges and directions; an unbounded reward is measured from the worst run's point."""
    summary = tables[0].summary
    axes = []
    for name in summary["rewards"]:
        low, high = summary["ranges"].get(name, (None, None))
        better = summary.get("higher_is_better", {}).get(name, True)
        references = [t.summary["reference_point"][name] for t in tables]
        axes.append(
            Axis(
                name,
                (-math.inf if low is None else low, math.inf if high is None else high),
                better,
                min(references) if better else max(references),
            )
        )
    return axes


def _points(
    tables: Sequence[RunTables],
) -> dict[tuple[str, tuple[float, ...] | None], Point]:
    """Every model's values as [runs, prompts] a reward, the prompts in one order. Own preference first."""
    keys = sorted(
        {key for t in tables for key in t.values},
        key=lambda key: (key[1] is not None, _place(tables, key[0])),
    )
    points: dict[tuple[str, tuple[float, ...] | None], Point] = {}
    for key in keys:
        stacked: dict[str, list[list[float]]] = defaultdict(list)
        for table in tables:
            for reward, prompts in table.values.get(key, {}).items():
                stacked[reward].append([float(np.mean(prompts[p])) for p in sorted(prompts)])
        points[key] = {reward: np.array(rows) for reward, rows in stacked.items()}
    return points


def _place(tables: Sequence[RunTables], method: str) -> int:
    order = list(dict.fromkeys(name for t in tables for name, _ in t.values))
    return order.index(method)


def _untargeted(tables: Sequence[RunTables]) -> list[str]:
    return list(dict.fromkeys(name for t in tables for name in t.summary.get("untargeted", [])))


def _score_names(tables: Sequence[RunTables], points: Mapping[Any, Point]) -> list[str]:
    summary = tables[0].summary
    judges = list(summary.get("judges", {}).values())
    known = {name for point in points.values() for name in point}
    wanted = [*summary["rewards"], *judges, *_untargeted(tables)]
    return [name for name in wanted if name in known]


def _budget(tables: Sequence[RunTables], method: str) -> int | None:
    """Training samples of one run of a method; a round's share for the earlier rounds of MapReduce."""
    for table in tables:
        name = method.removeprefix(f"{table.label} ") if table.label else method
        budget = table.summary["budget"]
        if name in budget:
            return int(budget[name])
        head, _, number = name.partition("@")
        rounds = len(table.summary["rounds"])
        if head in budget and number and rounds:
            return int(budget[head]) * int(number) // rounds
    return None
