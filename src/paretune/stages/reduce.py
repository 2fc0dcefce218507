"""Reduce: merge the experts of a round into one adapter, exactly by default, and record how they agreed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ..adapters.store import MOMENTUM, adapter_hash, cut_to, load_delta, save_delta, user_errors
from ..config import ReduceConfig, RunConfig
from ..files import digest, write_json
from ..ops.lowrank import LowRank, cosines, gram, spread_of_gram
from ..ops.merge_weights import simplex_lattice
from ..ops.merging import DIVISIONS, merge_experts, reducer_of
from ..planning.plan import Round, derive_seed
from ..records.manifest import finished, write_manifest
from ..records.read import read_diagnostics
from ..samples.media import medium_of

DIAGNOSTICS = "diagnostics.json"
# Candidate weights -> their values, all in one call: measuring them is one job (stages.measure_candidates).
MeasureCandidates = Callable[[Sequence[tuple[float, ...]]], Sequence[float]]


def reduce_round(
    config: RunConfig,
    round_: Round,
    run_folder: Path,
    previous: Path | None,
    evaluate: MeasureCandidates | None = None,
) -> None:
    """Merge the experts of a round into its merged folder, unless that is done already.

    previous: the merged folder of the previous round, which holds the momentum of the reducer `nesterov`.
    evaluate: measures candidate weights for the reducer `search`; it is not called for a finished round.
    Raises ParetuneError if the adapters cannot be read or merged.
    """
    folder, method = run_folder / round_.merged, round_.reduce
    experts = [run_folder / task.folder for task in round_.tasks]
    # A baseline chooses its own reducer; the recipe's rank and options are not meant for that one.
    baseline = method != config.reduce.method
    settings = ReduceConfig.model_validate({"method": method}) if baseline else config.reduce
    options = _options(config, settings, round_)
    state = previous / MOMENTUM if method == "nesterov" and previous else None
    inputs = digest(
        {
            "experts": [adapter_hash(e) for e in experts],
            "weights": list(round_.weights),
            "method": method,
            "reduce": settings.model_dump(mode="json", include={"rank", "energy"}),
            "options": options,
            "previous": adapter_hash(previous) if previous else None,
            "state": adapter_hash(state) if state else None,
        }
    )
    if finished(folder, "merged", inputs):
        return
    deltas = [load_delta([e]) for e in experts]
    if state:
        options["state"] = load_delta([state])
    facts: dict[str, Any] = {}
    with user_errors():
        if method == "search":
            facts, options = _search(len(experts), options, evaluate)
        merged = merge_experts(deltas, round_.weights, method, settings.rank, settings.energy, **options)
    base, component = config.model.path, medium_of(config.model).component
    files = [*save_delta(folder, merged.deltas, base, {"method": method}, component), DIAGNOSTICS]
    if merged.state is not None:
        state_files = save_delta(folder / MOMENTUM, merged.state, base, {"state_of": method}, component)
        files += [f"{MOMENTUM}/{name}" for name in state_files]
    before = read_diagnostics(previous / DIAGNOSTICS) if previous else None
    facts |= diagnose(deltas, merged.weights, before) | {
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
    g = gram(deltas)
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


def write_final(config: RunConfig, merged: Sequence[Path], folder: Path) -> None:
    """Write one adapter over the original base: the exact sum of all rounds, or that cut to `final_rank`."""
    rank = config.reduce.final_rank
    inputs = digest({"merged": [adapter_hash(m) for m in merged], "rank": rank})
    if finished(folder, "final", inputs):
        return
    total = load_delta(list(merged))
    error = 0.0 if rank is None else cut_to(total, rank)
    component = medium_of(config.model).component
    files = save_delta(folder, total, config.model.path, {"compression_error": error}, component)
    write_manifest(
        folder, "final", inputs, files, place=folder.name, compression_error=error,
        rank=max(d.rank for d in total.values()),
    )  # fmt: skip
