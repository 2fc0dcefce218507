"""What other methods reached on a recipe that ships, told where a run of it does not try them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from paretune.planning.methods import METHODS
from paretune.recipes import find_recipe, load_config, shipped_recipes
from paretune.stages.known import known_results


def told(*changes: str) -> list[str]:
    return known_results(load_config(find_recipe("quickstart"), changes))


@pytest.mark.parametrize("free", [(), ("seed=7",), ("executor.workers=1",)])
def test_the_quickstart_tells_how_a_joint_policy_did(free: tuple[str, ...]) -> None:
    """Means and standard errors of .395 .396 .460, and of .339 .400 .330: the seeds that both have."""
    (line,) = told(*free)
    assert "morl_dr, with the same prompts" in line
    assert "has hypervolume 0.417 ± 0.022 over the seeds 0, 1, 2, where mapreduce by this recipe" in line
    assert "has 0.356 ± 0.022. It was measured before" in line
    assert "paretune run quickstart --set 'methods=[morl_dr]' --set rounds=6" in line


def test_a_method_that_was_measured_at_another_setting_is_not_said_to_be_this_run() -> None:
    """What morl_dr reaches by the recipe itself was not measured; its own best setting was."""
    (line,) = told("methods=[morl_dr]")
    assert line.startswith("Not part of this run: mapreduce")
    assert "by this recipe" not in line


@pytest.mark.parametrize(
    "change", ["train.epochs=2", "evaluate.prompts=8", "methods=[mapreduce,morl_dr]", "rewards.ocr.weight=2"]
)
def test_nothing_is_told_of_a_changed_recipe_or_of_a_method_that_is_tried(change: str) -> None:
    assert told(change) == []


@pytest.mark.parametrize("name", ["assistant", "smoke"])
def test_a_recipe_that_was_not_measured_tells_nothing(name: str) -> None:
    assert known_results(load_config(find_recipe(name))) == []


def test_every_file_is_of_a_recipe_and_names_methods() -> None:
    recipes = shipped_recipes()
    for file in (recipes["quickstart"].parent / "measured").glob("*.json"):
        measured: dict[str, Any] = json.loads(Path(file).read_text())
        assert file.stem in recipes
        assert measured.keys() <= METHODS.keys()
        assert all(len(row["hypervolume"]) >= 3 and "--set" in row["flags"] for row in measured.values())
