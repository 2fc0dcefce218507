"""The fit of a preference to choices: known weights come back, and what choices leave open is told."""

from __future__ import annotations

import math

import numpy as np
import pytest

from paretune.ops.bradley_terry import fit_choices, on_simplex, spreads


@pytest.mark.parametrize(
    ("w", "point"),
    [
        ([0.2, 0.3, 0.5], [0.2, 0.3, 0.5]), ([0.0, 0.0], [0.5, 0.5]), ([3.0, 1.0, 0.0], [1, 0, 0]),
        ([0.3, 0.1, 0.0], [0.5, 0.3, 0.2]), ([-1.0, -1.2], [0.6, 0.4]), ([-5.0, 2.0], [0, 1]), ([7.0], [1]),
    ],
)  # fmt: skip
def test_the_nearest_preference(w: list[float], point: list[float]) -> None:
    assert on_simplex(np.array(w)).tolist() == pytest.approx(point)


def test_one_gap_has_the_weight_at_which_choice_and_prior_balance() -> None:
    """Scores 1 and 0 have a spread of 1/2, so d = 2; w solves 4 * 2 sigmoid(-2 w) = w."""
    fit = fit_choices(np.ones((4, 1)), np.zeros((4, 1)))
    w = fit.weights[0]
    assert w == pytest.approx(8 / (1 + math.exp(2 * w)))
    assert w == pytest.approx(0.982836, abs=1e-6)
    assert (fit.preference, fit.explained) == ((1.0,), 4.0)


def test_many_choices_show_the_weights_that_made_them() -> None:
    chance = np.random.default_rng(1)
    first, second = chance.normal(size=(2, 600, 3)) * np.array([1.0, 20.0, 0.1])  # scales do not enter
    right = np.array([0.7, 0.3, 0.0])
    gaps = (first - second) / spreads(first, second)
    wins = chance.random(600) < 1 / (1 + np.exp(-gaps @ right))
    chosen, rejected = np.where(wins[:, None], first, second), np.where(wins[:, None], second, first)
    fit = fit_choices(chosen, rejected)
    few = fit_choices(chosen[:6], rejected[:6])
    for share, error, wanted in zip(fit.preference, fit.error, right, strict=True):
        assert abs(share - wanted) < 3 * error + 0.02
        assert error < 0.1
    assert max(few.error) > 2 * max(fit.error)
    assert sum(few.preference) == pytest.approx(1)


def test_swapped_choices_turn_the_weights_and_missing_scores_say_nothing() -> None:
    chosen = np.array([[1.0, math.nan], [2.0, math.nan], [4.0, math.nan], [3.0, math.nan]])
    rejected = chosen - 1
    fit, other = fit_choices(chosen, rejected), fit_choices(rejected, chosen)
    assert fit.weights[0] == pytest.approx(-other.weights[0])
    assert fit.weights[1] == other.weights[1] == 0
    assert fit.preference[0] > 0.9
    assert other.preference[1] > 0.9
    nothing = fit_choices(np.zeros((4, 2)), np.zeros((4, 2)))
    assert (nothing.preference, nothing.explained) == ((0.5, 0.5), 2.0)
