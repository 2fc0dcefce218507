"""How the learning rate falls."""

from __future__ import annotations

import pytest

from paretune.training.learning_rate import rate_share


def test_constant_stays() -> None:
    assert [rate_share("constant", e, 0, 3) for e in range(3)] == [1.0, 1.0, 1.0]


def test_linear_would_reach_zero_after_the_last_epoch() -> None:
    assert [rate_share("linear", e, 0, 4) for e in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_cosine_is_half_way_down_in_the_middle() -> None:
    shares = [rate_share("cosine", e, 0, 4) for e in range(5)]
    assert shares == pytest.approx([1.0, 0.853553, 0.5, 0.146447, 0.0], abs=1e-6)


def test_it_begins_again_where_an_expert_goes_on() -> None:
    assert [rate_share("linear", e, 10, 12) for e in (10, 11)] == [1.0, 0.5]


def test_a_round_goes_on_where_the_one_before_it_stopped() -> None:
    rounds = [rate_share("linear", e, -2 * k, 6 - 2 * k) for k in range(3) for e in range(2)]
    assert rounds == pytest.approx([rate_share("linear", e, 0, 6) for e in range(6)])
