"""summary.json: means, standard errors and hypervolumes, from the evaluation's rows and scales alone."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import moocore
import numpy as np

from ..config import RunConfig
from ..files import read_json, write_json
from ..plan import Plan
from .reduce import DIAGNOSTICS
from .scorers import read_scales
from .subjects import subjects_of

Row = dict[str, Any]
Table = dict[str, dict[str, float]]


def summarise(
    config: RunConfig, plan: Plan, run: Path, rows: list[Row], timing: Mapping[str, float]
) -> dict[str, Any]:
    """Write and return the summary (the contract is in docs/runs.md)."""
    means, errors = tables(rows)
    last = f"mapreduce@{config.rounds}"
    means["mapreduce"], errors["mapreduce"] = means[last], errors[last]
    scales = read_scales(config, run / subjects_of(config, plan)[0].folder)
    ranges = {s.name: list(s.range) for s in scales if s.kind == "reward"}
    signs = {s.name: 1.0 if s.higher_is_better else -1.0 for s in scales}
    kept = {m: v for m, v in means.items() if not m.startswith("round-")}
    reference = _reference(kept, ranges, signs)
    volumes = {m: _hypervolume(v, ranges, signs, reference) for m, v in kept.items()}
    budget = {m.name: m.samples for m in plan.methods}
    for name in config.rewards:
        budget[f"expert:{name}"] = budget[plan.methods[-1].name] // len(config.rewards)
    summary = {
        "rewards": list(config.rewards),
        "judges": {s.prompt_set: s.name for s in scales if s.kind == "judge"},
        "higher_is_better": {s.name: s.higher_is_better for s in scales},
        "ranges": {n: [_finite(v) for v in r] for n, r in ranges.items()},
        "methods": kept,
        "stderr": {m: errors[m] for m in kept},
        "hypervolume": volumes,
        "reference_point": reference,
        "rounds": [_round(config, run, k, means, errors, volumes) for k in range(1, config.rounds + 1)],
        "timing": dict(timing),
        "budget": {"base": 0, **budget},
        "seeds": [config.seed],
    }  # fmt: skip
    write_json(run / "summary.json", summary)
    return summary


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def tables(rows: list[Row]) -> tuple[Table, Table]:
    """Mean and standard error a method and reward; samples of one prompt count as one observation."""
    grouped: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        grouped[row["method"], row["reward"]][row["prompt"]].append(row["value"])
    means: Table = defaultdict(dict)
    errors: Table = defaultdict(dict)
    for (method, reward), prompts in grouped.items():
        values = np.array([np.mean(v) for v in prompts.values()])
        means[method][reward] = float(values.mean())
        spread = values.std(ddof=1) if len(values) > 1 else 0.0
        errors[method][reward] = float(spread / math.sqrt(len(values)))
    return dict(means), dict(errors)


def _unit(value: float, bounds: list[float]) -> float:
    """Where a bounded reward lies in its range; an unbounded one as it is."""
    low, high = bounds
    if math.isfinite(low) and math.isfinite(high) and high > low:
        return (value - low) / (high - low)
    return value


def _reference(
    means: Table, ranges: dict[str, list[float]], signs: dict[str, float]
) -> dict[str, float]:
    """The worst end of a bounded reward's range; below the worst method for an unbounded one."""
    point = {}
    for name, bounds in ranges.items():
        if all(math.isfinite(b) for b in bounds):
            point[name] = bounds[0] if signs[name] > 0 else bounds[1]
            continue
        values = [signs[name] * m[name] for m in means.values()]
        point[name] = signs[name] * (min(values) - 0.1 * (max(values) - min(values)) - 1e-6)
    return point


def _hypervolume(
    means: dict[str, float],
    ranges: dict[str, list[float]],
    signs: dict[str, float],
    reference: dict[str, float],
) -> float:
    """Volume between the reference point and one model's mean rewards, ranges scaled to 1."""
    point = [[signs[n] * _unit(means[n], ranges[n]) for n in ranges]]
    worst = [signs[n] * _unit(reference[n], ranges[n]) for n in ranges]
    return float(moocore.hypervolume(np.array(point), ref=np.array(worst), maximise=True))


def _round(
    config: RunConfig, run: Path, number: int, means: Table, errors: Table, volumes: dict[str, float]
) -> dict[str, Any]:
    facts = read_json(run / f"round-{number}" / "merged" / DIAGNOSTICS)
    name = f"mapreduce@{number}"
    experts = {r: means[f"round-{number}:{r}"] for r in config.rewards if f"round-{number}:{r}" in means}
    return {
        "round": number,
        "means": means[name],
        "stderr": errors[name],
        "contraction": facts["contraction"],
        "spread": facts["spread"],
        "hypervolume": volumes[name],
        "expert_means": experts,
    }
