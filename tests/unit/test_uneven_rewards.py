"""Rewards of very different ranges that are summed before they are normalised: a line says so."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from paretune.planning.notices import uneven_notices
from paretune.recipes import find_recipe, load_config
from paretune.run import run

from ..language import language_recipe

RANGES = {"positivity": (-1.0, 1.0), "reading_ease": (0.0, 100.0), "brevity": (0.0, 1.0),
          "instructions": (0.0, 1.0)}  # fmt: skip
SUMMED = ("objective.joint=sum_then_normalise", "methods=[mapreduce,morl_dr]")
TOLD = (
    "{} the rewards, and reading_ease spans {} where brevity spans 1, so that reading_ease decides nearly "
    "alone: objective.joint: normalise_then_sum gives each the same say"
)


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        (SUMMED, ("morl_dr sums", "100")),
        ((*SUMMED, "map.lean=0.5"), ("morl_dr and map.lean sum", "100")),
        ((*SUMMED, "methods=[mapreduce]", "map.lean=1"), ("map.lean sums", "100")),
        ((*SUMMED, "rewards.reading_ease.weight=0.06"), ("morl_dr sums", "6")),
        ((*SUMMED, "rewards.reading_ease.weight=0.05"), None),  # five times as wide: no more
        ((*SUMMED, "rewards.reading_ease.normalise=minmax"), None),
        ((*SUMMED, "methods=[mapreduce,rewarded_soup]"), None),  # every expert knows one reward
        ((*SUMMED, "methods=[morl_dr]", "map.lean=1"), ("morl_dr sums", "100")),
        (("methods=[mapreduce,morl_dr]",), None),  # the recipe normalises first
    ],
)
def test_a_wide_reward_is_named(sets: tuple[str, ...], told: tuple[str, str] | None) -> None:
    lines = uneven_notices(load_config(find_recipe("smollm2"), sets), RANGES)
    assert lines == ([] if told is None else [TOLD.format(*told)])


def test_a_reward_without_bounds_is_not_compared() -> None:
    config = load_config(find_recipe("smollm2"), SUMMED)
    assert uneven_notices(config, dict.fromkeys(RANGES, (-math.inf, math.inf))) == []
    assert uneven_notices(config, RANGES | {"reading_ease": (0.0, math.inf)}) == []


WIDE = """

class Wide:
    name, range, higher_is_better = "wide", (0.0, 100.0), True

    def score(self, samples, prompts):
        return [float(len(text) % 100) for text in samples]


class Narrow(Wide):
    name, range = "narrow", (0.0, 1.0)
"""


class Begun(Exception):
    """Training would begin now."""


def test_a_run_says_so_before_it_trains(tmp_path: Path, tiny_llama: Path) -> None:
    recipe = language_recipe(tmp_path, tiny_llama, methods=["morl_dr"])
    rewards = tmp_path / "rewards.py"
    rewards.write_text(rewards.read_text() + WIDE)
    names = {"yes": "Wide", "no": "Narrow"}
    config = load_config(recipe, [f"rewards.{key}.reward={rewards}:{name}" for key, name in names.items()])
    told: list[str] = []

    def report(event: dict[str, Any]) -> None:
        if "stage" in event:
            raise Begun
        told.append(event["notice"])

    with pytest.raises(Begun):
        run(config, tmp_path / "run", report)
    assert told == [
        "morl_dr sums the rewards, and yes spans 100 where no spans 1, so that yes decides nearly alone: "
        "objective.joint: normalise_then_sum gives each the same say"
    ]
