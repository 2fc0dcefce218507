"""Reduce: average the experts of a round, exactly by default, and say how they agreed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..config import RunConfig
from ..files import digest, finished, read_json, write_json, write_manifest
from ..ops.lowrank import LowRank, compress, cosines, gram, spread_of_gram
from ..ops.merging import merge_experts
from ..plan import Round
from .adapters import ADAPTER_FILES, adapter_hash, load_delta, save_delta

DIAGNOSTICS = "diagnostics.json"


def reduce_round(config: RunConfig, round_: Round, run: Path, previous: Path | None) -> None:
    """Average `round_`'s experts into its merged folder. previous: the merged folder of the round before."""
    folder = run / round_.merged
    experts = [run / task.folder for task in round_.tasks]
    used = list(round_.weights)
    inputs = digest(
        {
            "experts": [adapter_hash(e) for e in experts],
            "weights": used,
            "method": round_.reduce,
            "reduce": config.reduce.model_dump(mode="json", exclude={"final_rank", "method"}),
            "previous": adapter_hash(previous) if previous else None,
        }
    )
    if finished(folder, "merged", inputs):
        return
    deltas = [load_delta([e]) for e in experts]
    rank = config.reduce.rank if round_.reduce == "compressed" else None
    merged = merge_experts(deltas, used, round_.reduce, rank=rank)
    save_delta(folder, merged.deltas, config.model.path, {"method": round_.reduce})
    facts = diagnose(deltas, used, read_json(previous / DIAGNOSTICS) if previous else None)
    facts |= {
        "rewards": [t.reward for t in round_.tasks],
        "method": round_.reduce,
        "weights": merged.weights,
        "compression_error": merged.relative_error,
    }
    write_json(folder / DIAGNOSTICS, facts)
    write_manifest(folder, "merged", inputs, [*ADAPTER_FILES, DIAGNOSTICS], round=round_.number)


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


def write_final(config: RunConfig, merged: Sequence[Path], folder: Path) -> None:
    """One adapter over the original base: the sum of all rounds, exact, or cut to reduce.final_rank."""
    rank = config.reduce.final_rank
    inputs = digest({"merged": [adapter_hash(m) for m in merged], "rank": rank})
    if finished(folder, "final", inputs):
        return
    total = load_delta(list(merged))
    error = 0.0
    if rank is not None:
        lost = size = 0.0
        for name, delta in total.items():
            cut = compress(delta, rank=min(rank, delta.rank))
            norm = delta.norm()
            lost, size = lost + (cut.relative_error * norm) ** 2, size + norm**2
            total[name] = cut.delta
        error = (lost / size) ** 0.5 if size else 0.0
    save_delta(folder, total, config.model.path, {"compression_error": error})
    write_manifest(
        folder, "final", inputs, ADAPTER_FILES, compression_error=error,
        rank=max(d.rank for d in total.values()),
    )  # fmt: skip
