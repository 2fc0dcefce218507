"""summary.json: means, standard errors and hypervolumes, computed from the evaluation's rows and scales."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import RunConfig
from ..data.preferences import load_preferences
from ..files import write_json
from ..ops.orders import order_matrix
from ..planning.budget import counted, expert_budget, set_sizes
from ..planning.plan import Plan
from ..planning.words import described, exchange
from ..records.labels import apart, labels, prompt_key
from ..records.read import Row, read_diagnostics
from .exchanged import exchanged, training_seconds
from .known import known_results
from .normalise import normalised, normalised_means
from .reduce import DIAGNOSTICS
from .scorers import Scale, read_scales
from .subjects import expert_round, subjects_of
from .volumes import Space

Table = dict[str, dict[str, float]]


def summarise(
    config: RunConfig, plan: Plan, run_folder: Path, rows: list[Row], timing: Mapping[str, float]
) -> dict[str, Any]:
    """Write summary.json and return it. Its format is described in docs/runs.md.

    Args:
        config: the recipe.
        plan: the plan of the run, for the budget of each method.
        run_folder: the folder of the run.
        rows: the rows of evaluation.jsonl.
        timing: phase -> seconds.
    """
    means, errors = tables(apart(rows))
    last = f"mapreduce@{config.rounds}"
    if last in means:
        means["mapreduce"], errors["mapreduce"] = means[last], errors[last]
    scales = _apart(read_scales(config, run_folder / subjects_of(config, plan)[0].folder))
    rewards = [s for s in scales if s.kind == "reward"]
    space = Space({s.name: s.range for s in rewards}, {s.name: s.higher_is_better for s in rewards})
    kept = {m: v for m, v in means.items() if not m.startswith("round-")}
    reference = space.reference(kept.values())
    volumes = {m: space.hypervolume(v, reference) for m, v in kept.items()}
    sizes = set_sizes(config)
    drawn = counted(config, plan, sizes)
    budget = {m.name: m.samples + m.reduce_samples for m in drawn.methods}
    devices = len(config.rewards)
    each = config.executor.devices_per_expert
    sent, seconds = exchanged(drawn, run_folder, each), training_seconds(drawn, run_folder, devices, each)
    experts = expert_round(plan)
    for task in experts.tasks if experts else ():
        budget[f"expert:{task.reward}"] = expert_budget(config, task, sizes).samples
    if config.tokens is not None:  # in addition to the budget of the expert
        of_token = config.tokens.options.drawn(config.train.group_size)
        budget |= {f"rate:{r}": of_token for r in config.rewards}
    rounds = [k for k in range(1, config.rounds + 1) if f"mapreduce@{k}" in means]
    summary = {
        "rewards": list(config.rewards),
        "untargeted": list(dict.fromkeys(s.name for s in scales if s.kind == "untargeted")),
        "judges": {s.prompt_set: s.name for s in scales if s.kind == "judge"},
        "higher_is_better": {s.name: s.higher_is_better for s in scales},
        "ranges": {n: [_finite(v) for v in r] for n, r in space.ranges.items()},
        "methods": kept,
        "stderr": {m: errors[m] for m in kept},
        "hypervolume": volumes,
        "reference_point": reference,
        "rounds": [_round(config, run_folder, k, means, errors, volumes) for k in rounds],
        "timing": dict(timing),
        "budget": {"base": 0, **budget},
        "seeds": [config.seed],
        "described": [*described(config), *exchange(sent, seconds, devices), *known_results(config)],
        "updates": {m.name: m.updates for m in drawn.methods},
        "exchanged": sent,
        "training_seconds": seconds,
    }  # fmt: skip
    if judged := file_orders(config, summary["higher_is_better"]):
        summary["pairs"] = judged
    if scaled := normalised_means(config, run_folder, rows):
        summary["normalised"] = {"ways": normalised(config), "methods": scaled}
    write_json(run_folder / "summary.json", summary)
    return summary


def file_orders(config: RunConfig, higher: Mapping[str, bool]) -> dict[str, Any]:
    """For every expert that learned from a file with scores of rewards: how often these order alike.

    higher: reward -> whether more of it is better. `file` is the file's own order.
    """
    found: dict[str, Any] = {}
    for name, own in config.rewards.items():
        records = load_preferences(own.pairs) if own.pairs else ()
        known = [r for r in config.rewards if any(r in record.judged for record in records)]
        if known:
            lists = [{"file": record.scores, **_better(record.judged, known, higher)} for record in records]
            found[name] = asdict(order_matrix(lists, ["file", *known]))
    return found


def _better(
    judged: Mapping[str, Sequence[float]], names: Sequence[str], higher: Mapping[str, bool]
) -> dict[str, list[float]]:
    """Scores with greater as better."""
    return {name: [value * (1 if higher.get(name, True) else -1) for value in judged[name]]
            for name in names if name in judged}  # fmt: skip


def _apart(scales: list[Scale]) -> list[Scale]:
    """The scales, renamed as `records.labels` renames their scores."""
    renamed = labels((s.prompt_set, s.kind, s.name) for s in scales)
    return [replace(s, name=renamed.get((s.prompt_set, s.kind, s.name), s.name)) for s in scales]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def tables(rows: list[Row]) -> tuple[Table, Table]:
    """The mean and the standard error of every method and reward.

    The samples of one prompt count as one observation. Of a menu only the model at the recipe's weights
    counts: the rows of the others say `lattice`.
    """
    grouped: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.get("lattice"):
            continue
        grouped[row["method"], row["reward"]][prompt_key(row)].append(row["value"])
    means: Table = defaultdict(dict)
    errors: Table = defaultdict(dict)
    for (method, reward), prompts in grouped.items():
        values = np.array([np.mean(v) for v in prompts.values()])
        means[method][reward] = float(values.mean())
        spread = values.std(ddof=1) if len(values) > 1 else 0.0
        errors[method][reward] = float(spread / math.sqrt(len(values)))
    return dict(means), dict(errors)


def _round(
    config: RunConfig, run_folder: Path, number: int, means: Table, errors: Table, volumes: dict[str, float]
) -> dict[str, Any]:
    facts = read_diagnostics(run_folder / f"round-{number}" / "merged" / DIAGNOSTICS)
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
