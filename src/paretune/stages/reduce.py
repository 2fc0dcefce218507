"""Reduce: the experts of a round into one, averaged exactly by default, and how they agreed."""

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
# Candidate weights -> their values, all at once: measuring them is one job (stages.search).
Evaluate = Callable[[Sequence[tuple[float, ...]]], Sequence[float]]


def reduce_round(
    config: RunConfig,
    round_: Round,
    run: Path,
    previous: Path | None,
    evaluate: Evaluate | None = None,
) -> None:
    """Merge `round_`'s experts into its merged folder by its reducer, unless that is done.

    previous: the merged folder of the round before, in which nesterov finds its momentum. evaluate:
    what search chooses the weights by; not called when the round is finished. Raises ParetuneError.
    """
    folder, method = run / round_.merged, round_.reduce
    experts = [run / task.folder for task in round_.tasks]
    # A baseline's reducer is its own: the recipe's rank and options are not for it.
    own = config.reduce if method == config.reduce.method else ReduceConfig.model_validate({"method": method})
    options = _options(config, own, round_)
    state = previous / MOMENTUM if method == "nesterov" and previous else None
    inputs = digest(
        {
            "experts": [adapter_hash(e) for e in experts],
            "weights": list(round_.weights),
            "method": method,
            "reduce": own.model_dump(mode="json", include={"rank", "energy"}),
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
        merged = merge_experts(deltas, round_.weights, method, own.rank, own.energy, **options)
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


def _options(config: RunConfig, own: ReduceConfig, round_: Round) -> dict[str, Any]:
    """The reducer's options; masks differ from round to round unless the recipe gives their seed."""
    options = dict(own.options)
    if "seed" in reducer_of(round_.reduce).options():
        options.setdefault("seed", derive_seed(config.seed, "reduce", round_.number))
    return options


def _search(
    count: int, options: dict[str, Any], evaluate: Evaluate | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What diagnostics.json tells of a search, and the options of its merge. count: N experts."""
    if evaluate is None:
        raise ValueError("search needs evaluate, which a run makes of its validation prompts")
    divisions = int(options.get("divisions", DIVISIONS))
    candidates = list(simplex_lattice(count, divisions))
    values = dict(zip(candidates, evaluate(candidates), strict=True))
    told = [{"weights": list(w), "value": v} for w, v in values.items()]
    return {"search": told}, {"evaluate": values.__getitem__, "divisions": divisions}


def diagnose(
    deltas: Sequence[dict[str, LowRank]], weights: Sequence[float], previous: dict[str, Any] | None
) -> dict[str, Any]:
    """Gram and cosine matrices, norms, the spread d = max_i |dW_i - mean| and its contraction rho."""
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
    """How a round's experts agreed: cosines of the pairs, spread d, and contraction rho after the first."""
    facts = read_diagnostics(merged / DIAGNOSTICS)
    rows = facts["cosines"]
    pairs = [rows[i][j] for i in range(len(rows)) for j in range(i + 1, len(rows))]
    return {"cosines": pairs, "spread": facts["spread"], "contraction": facts["contraction"]}


def write_final(config: RunConfig, merged: Sequence[Path], folder: Path) -> None:
    """One adapter over the original base: the sum of all rounds, exact, or cut to reduce.final_rank."""
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
