"""`paretune compare`: one table of runs with several seeds, methods or recipes, made from their files.

The same method in several run folders counts as several seeds of it. A run may have a label, LABEL=FOLDER.
Its methods are then called "LABEL METHOD", and runs with the same label are pooled.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..files import real
from ..ops.indicators import Axis, Point, interval, qualities
from ..ops.merge_options import hint
from ..records.labels import apart, judges_of, prompt_key
from ..records.read import read_evaluation, read_summary
from ..records.seal import check_run
from ..types import ParetuneError
from .gains import higher_is_better, last_round

BASE = "base"  # the model before training, which runs of all labels share where it was measured alike
SOUP = "rewarded_soup"  # margins are measured from it unless the user names another method
NEEDED = ("rewards", "rounds", "ranges", "reference_point", "budget")  # keys of a run's summary
Row = dict[str, Any]  # of evaluation.jsonl
Summary = dict[str, Any]  # the content of summary.json
# (method, preference or None for the method's own) -> reward -> prompt -> values
Table = dict[tuple[str, tuple[float, ...] | None], dict[str, dict[str, list[float]]]]


@dataclass(frozen=True)
class RunTables:
    """The label, the summary and the evaluation of one run."""

    name: str
    label: str
    summary: Summary
    values: Table


def compare_runs(
    runs: Sequence[str], against: str | None = None, draws: int = 1000, verify: bool = False
) -> dict[str, Any]:
    """Compare runs. `compare_table` and `write_comparison` show the result, which docs/runs.md describes.

    runs: folders, or LABEL=FOLDER. against: the method from which margins of hypervolume are measured, by
    default rewarded_soup if a run has it. draws: of the bootstrap. verify: hash every file of the runs.
    Raises ParetuneError for a folder that holds no finished run or is given twice, for an unknown `against`,
    and for runs that were measured on different rewards or prompts.
    """
    tables = _with_bases([_read(*split_label(run), verify) for run in runs])
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
    methods = {}
    for method in fronts:
        point = points[method, None]
        base = points.get((f"{_label_of(tables, method)} {BASE}".lstrip(), None)) or points.get((BASE, None))
        methods[method] = {
            "runs": int(next(iter(point.values())).shape[0]),
            "samples": _budget(tables, method),
            "exchanged": _mean_of(tables, method, "exchanged"),
            "training_seconds": _mean_of(tables, method, "training_seconds"),
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
        "judges": _judges(tables),
        "untargeted": [name for name in _untargeted(tables) if name in names],
        "higher_is_better": {n: all(higher_is_better(t.summary, n) for t in tables) for n in names},
        "reference_point": {a.name: a.reference for a in axes},
        "against": against,
        "methods": methods,
    }


def stderr(values: np.ndarray) -> float:
    """The standard error of the mean of values [S, P]: over S runs, or over the P prompts of a single run.

    Runs that are all the same, such as those of the base, count as one.
    """
    means = values.mean(axis=1) if (values != values[0]).any() else values[0]
    return float(means.std(ddof=1) / math.sqrt(len(means))) if len(means) > 1 else 0.0


def gain(base: np.ndarray, values: np.ndarray, draws: int, seed: int = 0) -> dict[str, Any]:
    """The gain of a score over the base.

    Args:
        base: values of the base [S, P], for S runs and P prompts.
        values: values of the method, of the same shape.
        draws: of the bootstrap, which resamples runs, and prompts in the same way for both.
        seed: of the bootstrap.

    Returns:
        The mean gain, its share of the base, its 95 % bootstrap interval, and its standard error, which is
        the standard deviation of the bootstrap.
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


def split_label(run: str) -> tuple[str, str]:
    """Split into (label, folder). A path with an equals sign that exists is a folder without a label."""
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


def _values(label: str, summary: Summary, rows: Sequence[Row]) -> Table:
    last = f"mapreduce@{last_round(summary)}"
    values: Table = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for row in rows:
        method = row["method"]
        if method.startswith("round-"):  # an expert of one round is measured only for the tax matrix
            continue
        name = "mapreduce" if method == last else method
        preference = tuple(row["preference"]) if row.get("lattice") else None
        full = f"{label} {name}" if label and name != BASE else name
        values[full, preference][row["reward"]][prompt_key(row)].append(row["value"])
    return values


def _with_bases(tables: Sequence[RunTables]) -> list[RunTables]:
    """The same tables; where the bases of labels differ, each is called "LABEL base".

    Labels may stand for other models, or for other ways of measuring one.
    """
    means = [_means(table.values.get((BASE, None), {})) for table in tables]
    known = {name: value for mean in reversed(means) for name, value in mean.items()}
    if all(math.isclose(value, known[name], rel_tol=1e-5) for mean in means for name, value in mean.items()):
        return list(tables)
    return [replace(t, values={(_own(t, m), p): v for (m, p), v in t.values.items()}) for t in tables]


def _means(scores: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, float]:
    return {name: float(np.mean([np.mean(v) for v in prompts.values()])) for name, prompts in scores.items()}


def _own(table: RunTables, method: str) -> str:
    return f"{table.label} {BASE}" if table.label and method == BASE else method


def _label_of(tables: Sequence[RunTables], method: str) -> str:
    """The label of the runs that have a method; "" where they have none."""
    return next(t.label for t in tables if any(method == name for name, _ in t.values))


def _check_once(tables: Sequence[RunTables]) -> None:
    """Refuse a run that is given twice, because it would count as two seeds."""
    seen: dict[Path, str] = {}
    for table in tables:
        place = real(Path(table.name))
        if place in seen:
            raise ParetuneError(f"{seen[place]} and {table.name} are the same run; give it once")
        seen[place] = table.name


def _check_alike(tables: Sequence[RunTables]) -> None:
    first, grids = tables[0], dict[str, tuple[RunTables, set[tuple[float, ...]]]]()
    for other in tables:
        if other.summary["rewards"] != first.summary["rewards"]:
            raise ParetuneError(
                f"{other.name} has the rewards {', '.join(other.summary['rewards'])} and {first.name} "
                f"has {', '.join(first.summary['rewards'])}: only runs of the same rewards compare"
            )
        for method, grid in _grids(other).items():
            before, known = grids.setdefault(method, (other, grid))
            if grid != known:
                raise ParetuneError(
                    f"{method} of {other.name} was measured at other preferences than that of {before.name}; "
                    "run both with the same evaluate.lattice and weights, or give them labels: a=RUN b=RUN"
                )
        for reward in first.summary["rewards"]:
            if _prompts(other, reward) != _prompts(first, reward):
                raise ParetuneError(
                    f"{other.name} was measured on other held-out prompts of {reward} than {first.name}; "
                    "run both with the same evaluate section"
                )


def _grids(table: RunTables) -> dict[str, set[tuple[float, ...]]]:
    """Method -> the preferences of the grid at which it was measured."""
    grids: dict[str, set[tuple[float, ...]]] = {method: set() for method, _ in table.values}
    for method, preference in table.values:
        grids[method] |= set() if preference is None else {preference}
    return grids


def _prompts(table: RunTables, reward: str) -> set[str]:
    return {prompt for (method, _), v in table.values.items() for prompt in v[reward]
            if "@" not in method}  # fmt: skip


def _axes(tables: Sequence[RunTables]) -> list[Axis]:
    """The ranges and directions of the rewards, and the worst of the runs' reference points."""
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
    """Every model's values by reward, each [runs, prompts] with the prompts in the same order.

    A method's model at the recipe's weights comes before its other models.
    """
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


def _judges(tables: Sequence[RunTables]) -> dict[str, str]:
    """Reward -> its judge, of the first run that has one."""
    return {k: v for table in reversed(tables) for k, v in table.summary.get("judges", {}).items()}


def _score_names(tables: Sequence[RunTables], points: Mapping[Any, Point]) -> list[str]:
    judges = [name for table in tables for name in table.summary.get("judges", {}).values()]
    known = {name for point in points.values() for name in point}
    wanted = dict.fromkeys([*tables[0].summary["rewards"], *judges, *_untargeted(tables)])
    return [name for name in wanted if name in known]


def _mean_of(tables: Sequence[RunTables], method: str, key: str) -> float | None:
    """The mean over runs of a figure that a summary has for each method; None if no run has it."""
    own = [t.summary.get(key, {}).get(plain) for t in tables if (plain := _plain(t, method))]
    found = [float(value) for value in own if value is not None]
    return sum(found) / len(found) if found else None


def _plain(table: RunTables, method: str) -> str | None:
    """The name of a method in the summary of a run with a label; None for a method of another run."""
    if not table.label:
        return method
    before = f"{table.label} "
    return method.removeprefix(before) if method.startswith(before) else None


def _budget(tables: Sequence[RunTables], method: str) -> int | None:
    """The training samples of one run of a method. An earlier round of MapReduce gets its share of them."""
    for table in tables:
        name = _plain(table, method) or ""
        budget = table.summary["budget"]
        if name in budget:
            return int(budget[name])
        head, _, number = name.partition("@")
        rounds = last_round(table.summary)
        if head in budget and number and rounds:
            return int(budget[head]) * int(number) // rounds
    return None
