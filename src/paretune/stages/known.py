"""What other methods reached on a recipe that ships with paretune, where a run of it does not try them.

`recipes/measured/NAME.json` holds, for a method at its own best setting, the hypervolume of each seed on the
recipe's held-out prompts, with as many training samples, and the flags by which `paretune run NAME` measures
it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    # Of a method that was measured at another setting than the recipe's, this run's result is not known.
    known = measured.get(own) if _is_recipe(measured.get(own), own) else None
    return [
        f"Not part of this run: {name}, with the same prompts, as many training samples and its own best "
        f"setting, has hypervolume {_beside(row, known, own)}. It was measured before; measure "
        f"it again by `paretune run {config.name} {row['flags']} --out runs/{name}`."
        for name, row in measured.items() if name not in config.methods
    ]  # fmt: skip


def _is_recipe(row: Mapping[str, Any] | None, name: str) -> bool:
    """Whether a method was measured by the recipe as it is, but for the methods."""
    return row is not None and row["flags"] == f"--set 'methods=[{name}]'"


def _beside(row: Mapping[str, Any], other: Mapping[str, Any] | None, name: str) -> str:
    """A method's hypervolume, and that of the run's own method over the same seeds where it was measured."""
    seeds = [seed for seed in row["hypervolume"] if other is None or seed in other["hypervolume"]]
    told = f"{_volume(row, seeds)} over the seeds {', '.join(seeds)}"
    return told if other is None else f"{told}, where {name} by this recipe has {_volume(other, seeds)}"


def _volume(row: Mapping[str, Any], seeds: Sequence[str]) -> str:
    """The mean of some seeds' hypervolumes with its standard error."""
    values = [row["hypervolume"][seed] for seed in seeds]
    return f"{fmean(values):.3f} ± {stdev(values) / len(values) ** 0.5:.3f}"
