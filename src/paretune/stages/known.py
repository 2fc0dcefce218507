"""What other methods reached on a recipe that ships with paretune, where a run of it does not try them.

`recipes/measured/NAME.json` holds, for a method at its own best setting, the hypervolume of each seed on the
recipe's held-out prompts, with as many training samples, and the flags by which `paretune run NAME` measures
it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean, stdev
from typing import Any

from ..config import RunConfig
from ..files import read_json
from ..recipes import load_config, shipped_recipes

FREE = {"name", "seed", "methods", "executor", "trackers"}  # none of these moves a method's expected result


def known_results(config: RunConfig) -> list[str]:
    """A sentence for each method that was measured and is not in this run; [] for a changed recipe."""
    recipe = shipped_recipes().get(config.name)
    file = None if recipe is None else recipe.parent / "measured" / f"{recipe.stem}.json"
    if recipe is None or file is None or not file.exists():
        return []
    if config.model_dump(exclude=FREE) != load_config(recipe).model_dump(exclude=FREE):
        return []
    measured: dict[str, Any] = read_json(file)
    own = config.methods[0]
    beside = f", where {own} by this recipe has {_volume(measured[own])}" if own in measured else ""
    return [
        f"Not part of this run: {name}, with the same prompts, as many training samples and its own best "
        f"setting, has hypervolume {_volume(row)}{beside}. It was measured before; measure it again by "
        f"`paretune run {config.name} {row['flags']} --out runs/{name}`."
        for name, row in measured.items() if name not in config.methods
    ]  # fmt: skip


def _volume(row: Mapping[str, Any]) -> str:
    """The mean of the seeds' hypervolumes with its standard error."""
    seeds, values = row["hypervolume"].keys(), list(row["hypervolume"].values())
    return f"{fmean(values):.3f} ± {stdev(values) / len(values) ** 0.5:.3f} (seeds {', '.join(seeds)})"
