"""Plots of a run of many rounds name a few of them, so that nothing lies on top of something else."""

from __future__ import annotations

from typing import Any

import pytest

from paretune.report.canvas import marked
from paretune.report.curves import contraction
from paretune.report.fronts import all_rewards, hypervolume, pair_front

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
    assert marked(rounds) == named


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
