"""Reduce: merge the experts of a round into one adapter, exactly by default, and record how they agreed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..adapters.store import MOMENTUM, adapter_hash, cut_to, load_delta, save_delta, user_errors
from ..config import ReduceConfig, RunConfig
from ..files import digest, write_json
from ..models.weighting import copy_embedding, embedding_hash
from ..ops.distilling import DISTIL
from ..ops.lowrank import LowRank, cosines, distance, gram, spread_of_gram
from ..ops.merge_weights import simplex_lattice
from ..ops.merging import DIVISIONS, MergeResult, merge_experts, reducer_of, relative
from ..ops.outer import best_step, scaled, with_momentum
from ..planning.plan import Round, derive_seed
from ..records.manifest import finished, write_manifest
from ..records.read import read_diagnostics
from ..samples.media import medium_of
from .distil import STUDENT
from .measure_steps import DIRECTION

DIAGNOSTICS = "diagnostics.json"
# Candidate weights -> their values, all in one call: measuring them is one job (stages.measure_candidates).
MeasureCandidates = Callable[[Sequence[tuple[float, ...]]], Sequence[float]]
# Steps -> their values; the average that they scale lies in the round's direction/ (stages.measure_steps).
MeasureSteps = Callable[[tuple[float, ...]], Sequence[float]]


def reduce_round(
    config: RunConfig,
    round_: Round,
    run_folder: Path,
    previous: Path | None,
    evaluate: MeasureCandidates | None = None,
    measure_steps: MeasureSteps | None = None,
) -> None:
    """Merge the experts of a round into its merged folder, unless that is done already.

    previous: the merged folder of the previous round, which holds the momentum of the outer steps.
    evaluate: measures candidate weights for the reducer `search`; it is not called for a finished round.
    measure_steps: measures the steps that `reduce.step` leaves to choose, likewise.
    Raises ParetuneError if the adapters cannot be read or merged.
    """
    folder, method = run_folder / round_.merged, round_.reduce
    experts = [run_folder / task.folder for task in round_.tasks]
    if method == DISTIL:
        experts.append(run_folder / round_.beside(STUDENT))
    # A baseline chooses its own reducer; the recipe's rank and options are not meant for that one.
    baseline = method != config.reduce.method
    settings = ReduceConfig.model_validate({"method": method}) if baseline else config.reduce
    options = _options(config, settings, round_)
    moving = method == "nesterov" or round_.momentum > 0
    state = previous / MOMENTUM if moving and previous else None
    inputs = _inputs(round_, settings, options, experts, previous, state)
    if finished(folder, "merged", inputs):
        return
    deltas = [load_delta([e]) for e in experts[: len(round_.tasks)]]
    before = load_delta([state]) if state else None
    if method == "nesterov" and before is not None:
        options["state"] = before
    facts: dict[str, Any] = {}
    with user_errors():
        if method == "search":
            facts, options = _search(len(experts), options, evaluate)
        if method == DISTIL:
            merged = _distilled(run_folder / round_.beside(STUDENT), deltas, round_, settings)
        else:
            merged = merge_experts(deltas, round_.weights, method, settings.rank, settings.energy, **options)
    aside = run_folder / round_.beside(DIRECTION)
    folding = _outer_step(config, round_, aside, merged, before, measure_steps)
    files = [*_save(config, folder, folding.changes, {"method": method}), DIAGNOSTICS]
    if folding.state is not None:
        state_files = _save(config, folder / MOMENTUM, folding.state, {"state_of": method})
        files += [f"{MOMENTUM}/{name}" for name in state_files]
    earlier = read_diagnostics(previous / DIAGNOSTICS) if previous else None
    facts |= folding.facts | diagnose(deltas, merged.weights, earlier) | {
        "rewards": [t.reward for t in round_.tasks],
        "method": method,
        "weights": merged.weights,
        "compression_error": merged.relative_error,
    }
    write_json(folder / DIAGNOSTICS, facts)
    write_manifest(
        folder, "merged", inputs, files, place=round_.merged,
        round=round_.number, method=method, weights=merged.weights,
    )  # fmt: skip


def _distilled(
    folder: Path, deltas: Sequence[dict[str, LowRank]], round_: Round, settings: ReduceConfig
) -> MergeResult:
    """The student of a round as its average. The error says how far it is from the exact average."""
    student = merge_experts([load_delta([folder])], None, "exact", settings.rank, settings.energy).deltas
    mean = merge_experts(deltas, round_.weights).deltas
    parts = [distance(student[name], mean[name]) for name in student]
    error = relative(parts, [mean[name].norm() for name in student])
    return MergeResult(student, error, list(round_.weights))


def _inputs(
    round_: Round, settings: ReduceConfig, options: dict[str, Any], experts: Sequence[Path],
    previous: Path | None, state: Path | None,
) -> str:  # fmt: skip
    """A digest of everything that determines what a round folds."""
    return digest(
        {
            "experts": [adapter_hash(e) for e in experts],
            "weights": list(round_.weights),
            "method": round_.reduce,
            "reduce": settings.model_dump(mode="json", include={"rank", "energy"}),
            "options": options,
            "previous": adapter_hash(previous) if previous else None,
            "state": adapter_hash(state) if state else None,
            **({"outer": [round_.step, round_.momentum]} if round_.has_outer_step else {}),
        }
    )


@dataclass(frozen=True)
class _Folding:
    """changes: what is folded. state: the momentum for the next round. facts: for diagnostics.json."""

    changes: Mapping[str, LowRank]
    state: Mapping[str, LowRank] | None
    facts: dict[str, Any]


def _outer_step(
    config: RunConfig, round_: Round, direction: Path, merged: MergeResult,
    before: Mapping[str, LowRank] | None, measure: MeasureSteps | None,
) -> _Folding:  # fmt: skip
    """Give the average of a round its momentum and its step.

    Args:
        config: the recipe.
        round_: the round.
        direction: where the average is written for the worker that measures steps.
        merged: what the reducer made.
        before: the momentum of the round before.
        measure: measures steps.
    """
    changes, state, step = merged.deltas, merged.state, round_.step
    if not round_.has_outer_step:
        return _Folding(changes, state, {})
    if round_.momentum:
        changes = state = with_momentum(changes, before, round_.momentum)
    facts: dict[str, Any] = {"momentum": round_.momentum}
    if isinstance(step, tuple):
        _save(config, direction, changes, {})
        with user_errors():
            if measure is None:
                raise ValueError("a choice of steps needs measure_steps, which a run makes of its prompts")
            values = measure(step)
            facts["steps"] = [{"step": s, "value": v} for s, v in zip(step, values, strict=True)]
            step = best_step(step, values)
    return _Folding(scaled(changes, step), state, facts | {"step": step})


def _save(
    config: RunConfig, folder: Path, changes: Mapping[str, LowRank], extra: dict[str, Any]
) -> list[str]:
    """Write an adapter over the recipe's base. Returns the names of its files."""
    return save_delta(folder, changes, config.model.path, extra, medium_of(config.model).component)


def _options(config: RunConfig, settings: ReduceConfig, round_: Round) -> dict[str, Any]:
    """The reducer's options. Random masks differ between rounds unless the recipe gives their seed."""
    options = dict(settings.options)
    if "seed" in reducer_of(round_.reduce).options():
        options.setdefault("seed", derive_seed(config.seed, "reduce", round_.number))
    return options


def _search(
    count: int, options: dict[str, Any], evaluate: MeasureCandidates | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Search the weights of `count` experts.

    Returns what diagnostics.json records of the search, and the options for the merge.
    """
    if evaluate is None:
        raise ValueError("search needs evaluate, which a run makes of its validation prompts")
    divisions = int(options.get("divisions", DIVISIONS))
    candidates = list(simplex_lattice(count, divisions))
    values = dict(zip(candidates, evaluate(candidates), strict=True))
    rows = [{"weights": list(w), "value": v} for w, v in values.items()]
    return {"search": rows}, {"evaluate": values.__getitem__, "divisions": divisions}


def diagnose(
    deltas: Sequence[dict[str, LowRank]], weights: Sequence[float], previous: dict[str, Any] | None
) -> dict[str, Any]:
    """How the experts of a round agree.

    Args:
        deltas: the weight changes dW_i of the experts.
        weights: of the experts in the mean.
        previous: the diagnostics of the previous round, if there was one.

    Returns:
        The Gram and cosine matrices, the norms, the spread d = max_i |dW_i - mean|, and the contraction rho,
        which is the spread divided by that of the previous round.
    """
    return diagnosed(gram(deltas), weights, previous)


def diagnosed(
    g: torch.Tensor, weights: Sequence[float], previous: dict[str, Any] | None
) -> dict[str, Any]:
    """See `diagnose`. g: the inner products of the weight changes, [N, N]."""
    spread = spread_of_gram(g, weights)
    before = previous["spread"] if previous else None
    return {
        "gram": g.tolist(),
        "cosines": cosines(g).tolist(),
        "norms": torch.diagonal(g).clamp(min=0).sqrt().tolist(),
        "spread": spread,
        "contraction": spread / before if before else None,
    }


def diagnostics(merged: Path) -> dict[str, Any]:
    """How the experts of a merged folder agreed: cosines of all pairs, spread d and contraction rho.

    The first round has no contraction: it is None.
    """
    facts = read_diagnostics(merged / DIAGNOSTICS)
    rows = facts["cosines"]
    pairs = [rows[i][j] for i in range(len(rows)) for j in range(i + 1, len(rows))]
    return {"cosines": pairs, "spread": facts["spread"], "contraction": facts["contraction"]}


def write_final(
    config: RunConfig, merged: Sequence[Path], folder: Path, weighted: Path | None = None
) -> None:
    """Write one adapter over the original base: the exact sum of all rounds, or that cut to `final_rank`.

    weighted: the folder of an embedding of weights that belongs to the adapter, which is copied.
    """
    rank = config.reduce.final_rank
    also = {"weights": embedding_hash(weighted)} if weighted else {}
    inputs = digest({"merged": [adapter_hash(m) for m in merged], "rank": rank, **also})
    if finished(folder, "final", inputs):
        return
    total = load_delta(list(merged))
    error = 0.0 if rank is None else cut_to(total, rank)
    files = _save(config, folder, total, {"compression_error": error})
    files += [copy_embedding(weighted, folder)] if weighted else []
    write_manifest(
        folder, "final", inputs, files, place=folder.name, compression_error=error,
        rank=max(d.rank for d in total.values()),
    )  # fmt: skip
