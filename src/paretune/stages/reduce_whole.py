"""Reduce of experts that train all weights: their exact average, and final/ as a transformer's folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..adapters.store import adapter_hash
from ..adapters.whole import average, inner_products, save_changes, write_transformer
from ..config import RunConfig
from ..files import digest, write_json
from ..models.whole import transformer_folder
from ..planning.plan import Round
from ..records.manifest import finished, write_manifest
from ..records.read import read_diagnostics
from .reduce import DIAGNOSTICS, diagnosed


def reduce_whole(config: RunConfig, round_: Round, run_folder: Path, previous: Path | None) -> None:
    """Average the experts of a round, unless that is done already. See `reduce.reduce_round`."""
    folder, weights = run_folder / round_.merged, list(round_.weights)
    experts = [run_folder / task.folder for task in round_.tasks]
    inputs = digest({
        "experts": [adapter_hash(expert) for expert in experts],
        "weights": weights,
        "method": round_.reduce,
        "previous": adapter_hash(previous) if previous else None,
    })  # fmt: skip
    if finished(folder, "merged", inputs):
        return
    files = save_changes(folder, average(experts, weights), config.model.path)
    earlier = read_diagnostics(previous / DIAGNOSTICS) if previous else None
    facts = diagnosed(inner_products(experts), weights, earlier) | {
        "rewards": [task.reward for task in round_.tasks],
        "method": round_.reduce,
        "weights": weights,
        "compression_error": 0.0,
    }
    write_json(folder / DIAGNOSTICS, facts)
    write_manifest(
        folder, "merged", inputs, [*files, DIAGNOSTICS], place=round_.merged,
        round=round_.number, method=round_.reduce, weights=weights,
    )  # fmt: skip


def write_final_whole(config: RunConfig, merged: Sequence[Path], folder: Path) -> None:
    """Write the base with the changes of all rounds as a transformer, which `from_pretrained` loads."""
    inputs = digest({"merged": [adapter_hash(m) for m in merged], "whole": True})
    if finished(folder, "final", inputs):
        return
    files = write_transformer(transformer_folder(config.model), merged, folder, config.model.path)
    write_manifest(folder, "final", inputs, files, place=folder.name, compression_error=0.0)
