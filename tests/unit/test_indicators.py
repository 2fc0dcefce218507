"""Hypervolume and epsilon by hand, intervals that cover what they should."""

from __future__ import annotations

import numpy as np
import pytest

from paretune.ops.indicators import Axis, Point, interval, qualities

AXES = (Axis("a", (0, 1), True, 0.0), Axis("b", (0, 10), True, 0.0))


def point(a: float, b: float, runs: int = 1, prompts: int = 4) -> Point:
    return {"a": np.full((runs, prompts), a), "b": np.full((runs, prompts), b)}


def test_hypervolume_and_epsilon_by_hand() -> None:
    fronts = {"two": [point(0.5, 2), point(0.25, 8)], "one": [point(0.4, 5)]}
    found = qualities(fronts, AXES, against="one", draws=3)
    # Two overlapping boxes: .5 x .2 + .25 x .8 - .25 x .2.
    assert found["two"].hypervolume == pytest.approx(0.25)
    assert found["one"].hypervolume == pytest.approx(0.2)
    assert found["two"].margin == pytest.approx(0.05)
    assert found["one"].margin is None
    # To cover (.4, .5): the first point lacks .3 of b, the second .15 of a.
    assert found["two"].epsilon == pytest.approx(0.15)
    # To cover (.5, .2) it lacks .1; to cover (.25, .8) it lacks .3.
    assert found["one"].epsilon == pytest.approx(0.3)


def test_values_without_noise_have_intervals_without_width() -> None:
    found = qualities({"x": [point(0.5, 5)]}, AXES, draws=20)["x"]
    assert found.hypervolume_interval == (pytest.approx(0.25), pytest.approx(0.25))
    assert found.epsilon_interval == (0.0, 0.0)


def test_a_cost_is_turned_around() -> None:
    cost = (Axis("a", (0, 1), False, 1.0), AXES[1])
    assert qualities({"x": [point(0.2, 5)]}, cost, draws=2)["x"].hypervolume == pytest.approx(0.8 * 0.5)


def test_an_unbounded_reward_is_measured_from_its_reference() -> None:
    axes = (Axis("a", (-np.inf, np.inf), True, -1.0),)
    points = {"x": [{"a": np.full((1, 3), 2.0)}]}
    assert qualities(points, axes, draws=2)["x"].hypervolume == pytest.approx(3.0)


def test_prompts_are_resampled_together() -> None:
    """One front is the other plus a constant: its margin is certain though both are noisy."""
    values = np.random.default_rng(1).uniform(0.2, 0.6, (3, 50))
    axes = (Axis("a", (0, 1), True, 0.0),)
    found = qualities(
        {"low": [{"a": values[:1]}], "high": [{"a": values[:1] + 0.1}]}, axes, against="low", draws=200
    )
    assert found["high"].margin == pytest.approx(0.1)
    assert found["high"].margin_stderr == pytest.approx(0, abs=1e-9)
    low, high = found["low"].hypervolume_interval
    assert low < found["low"].hypervolume < high
    # The bootstrap of a mean is its standard error: two of them either side.
    error = values[0].std() / 50**0.5
    assert (high - low) == pytest.approx(2 * 1.96 * error, rel=0.25)


def test_an_interval_holds_95_of_100() -> None:
    assert interval(np.arange(1001.0)) == (pytest.approx(25), pytest.approx(975))
