"""A run of many rounds measures some of them, and plots name a few, so that nothing hides something else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paretune.ops.rounds import spaced
from paretune.planning.methods import build_plan
from paretune.recipes import find_recipe, load_config
from paretune.report.curves import contraction
from paretune.report.fronts import all_rewards, hypervolume, pair_front
from paretune.report.gains import last_round
from paretune.stages.subjects import subjects_of

NAMED = ["2", "4", "6", "8", "10", "12", "14", "16"]


@pytest.mark.parametrize(
    ("rounds", "named"),
    [
        (range(1, 1), []),
        (range(1, 2), [1]),
        (range(1, 9), [1, 2, 3, 4, 5, 6, 7, 8]),
        (range(1, 10), [1, 3, 5, 7, 9]),
        (range(1, 17), [2, 4, 6, 8, 10, 12, 14, 16]),
        (range(1, 65), [8, 16, 24, 32, 40, 48, 56, 64]),
    ],
)
def test_all_of_a_few_rounds_are_named_and_some_of_many(rounds: range, named: list[int]) -> None:
    assert spaced(rounds) == named


def _summary() -> dict[str, Any]:
    methods = {f"mapreduce@{k}": {"a": 0.5 + k / 40, "b": 0.2 + k / 80} for k in range(1, 17)}
    methods = {"base": {"a": 0.5, "b": 0.2}, "expert:a": {"a": 0.6, "b": 0.1}, **methods}
    methods["mapreduce"] = methods["mapreduce@16"]
    volumes = {name: means["a"] * means["b"] for name, means in methods.items()}
    return {"rewards": ["a", "b"], "methods": methods, "hypervolume": volumes, "stderr": {}}


def test_plots_of_sixteen_rounds_name_eight() -> None:
    summary = _summary()
    ticks = hypervolume(summary).axes[0].get_xticklabels()  # type: ignore[arg-type]
    assert [tick.get_text() for tick in ticks] == ["base", *NAMED]
    front = pair_front(summary, "a", "b").axes[0]  # type: ignore[arg-type]
    assert [text.get_text() for text in front.texts if text.get_text()] == NAMED
    _, labels = all_rewards(summary).axes[0].get_legend_handles_labels()  # type: ignore[arg-type]
    assert labels == ["base", "expert a", *(f"MapReduce, round {k}" for k in NAMED[:-1]), "MapReduce"]
    spreads: Any = {k: {"spread": 1.0, "contraction": 1.0} for k in range(1, 17)}
    axes = contraction(spreads).axes[0]
    assert [int(tick) for tick in axes.get_xticks()] == [int(k) for k in NAMED]
    assert len([text for text in axes.texts if text.get_text()]) == 8


def test_plots_of_fourteen_rounds_of_which_eight_are_measured_have_their_numbers() -> None:
    summary = _summary()
    kept = ["base", "expert:a", "mapreduce@1", *(f"mapreduce@{k}" for k in range(2, 15, 2))]
    summary["methods"] = {name: summary["methods"][name] for name in kept}
    summary["methods"]["mapreduce"] = summary["methods"]["mapreduce@14"]
    assert last_round(summary) == 14  # type: ignore[arg-type]
    axes = hypervolume(summary).axes[0]  # type: ignore[arg-type]
    assert np.asarray(axes.lines[0].get_xdata()).tolist() == [0, 1, 2, 4, 6, 8, 10, 12, 14]
    front = pair_front(summary, "a", "b").axes[0]  # type: ignore[arg-type]
    assert [text.get_text() for text in front.texts if text.get_text()] == NAMED[:7]


def test_the_first_of_sixteen_rounds_is_measured_and_not_named() -> None:
    summary = _summary()
    kept = ["base", "expert:a", "mapreduce", "mapreduce@1", *(f"mapreduce@{k}" for k in NAMED)]
    summary["methods"] = {name: summary["methods"][name] for name in kept}
    axes = hypervolume(summary).axes[0]  # type: ignore[arg-type]
    assert np.asarray(axes.lines[0].get_xdata()).size == 10
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["base", *NAMED]
    _, labels = all_rewards(summary).axes[0].get_legend_handles_labels()  # type: ignore[arg-type]
    assert labels == ["base", "expert a", *(f"MapReduce, round {k}" for k in NAMED[:-1]), "MapReduce"]


@pytest.mark.parametrize(
    ("summary", "last"),
    [
        ({"rounds": []}, 0),
        ({"methods": {"mapreduce@x": {}}, "rounds": [{"round": 1}, {"round": 3}]}, 3),
        ({"methods": {"mapreduce": {}, "mapreduce@12": {}}}, 12),
        ({"methods": {"base": {}, "mapreduce": {}}, "rounds": []}, 1),
    ],
)
def test_the_last_round_of_any_summary(summary: Any, last: int) -> None:
    assert last_round(summary) == last


def _measured(rounds: int) -> tuple[list[int], list[int]]:
    config = load_config(find_recipe("smoke"), [f"rounds={rounds}", "methods=[mapreduce]"])
    subjects = subjects_of(config, build_plan(config))
    merged = [s.round for s in subjects if s.method.startswith("mapreduce@") and s.round]
    experts = [s.round for s in subjects if s.method == f"round-{s.round}:ocr" and s.round]
    return merged, experts


def test_all_of_eight_rounds_are_measured_and_some_of_more() -> None:
    assert _measured(8) == ([*range(1, 9)], [*range(1, 9)])
    # An expert is measured beside the model that its round began with, for the tax matrix.
    assert _measured(14) == ([1, 2, 4, 6, 8, 10, 12, 14], [1, 2])
    assert _measured(9) == ([1, 3, 5, 7, 9], [1])
    assert _measured(16) == ([1, 2, *range(4, 17, 2)], [1, 2])
