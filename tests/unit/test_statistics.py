"""Figures with intervals, and the statistics of analyses, by cases with known answers."""

from __future__ import annotations

import math

import pytest
import torch

from paretune.ops.statistics import (
    accuracy,
    area_under_curve,
    figure,
    fisher_ratio,
    held_out_scores,
    mean_figure,
    rank_correlation,
    ranks,
)


def test_a_mean_with_its_count_and_interval() -> None:
    same = mean_figure(torch.ones(6), torch.arange(6))
    assert (same.value, same.count, same.low, same.high) == (1.0, 6, 1.0, 1.0)
    values = torch.tensor([0.0, 1.0] * 200)
    found = mean_figure(values, torch.arange(400))
    assert found.value == 0.5
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.5 / 20, rel=0.1)  # the normal interval


def test_rows_of_one_prompt_are_drawn_together() -> None:
    """Ten copies of each row under one prompt tell no more than the rows."""
    values = torch.tensor([0.0, 1.0] * 50)
    once = mean_figure(values, torch.arange(100))
    tenfold = mean_figure(values.repeat_interleave(10), torch.arange(100).repeat_interleave(10))
    assert (tenfold.low, tenfold.high) == (once.low, once.high)
    assert tenfold.count == 1000


def test_nothing_has_no_figure() -> None:
    found = mean_figure(torch.zeros(0), torch.zeros(0, dtype=torch.long)).to_json()
    assert found == {"value": None, "count": 0, "low": None, "high": None}


def test_one_prompt_alone_has_no_interval() -> None:
    """All resamples of it are the same, which is no certainty."""
    alone = torch.zeros(3, dtype=torch.long)
    for found in (mean_figure(torch.arange(3), alone), figure(alone, lambda rows: float(rows.sum()) / 3)):
        assert (found.value, found.count) == (1.0, 3)
        assert math.isnan(found.low)
        assert math.isnan(found.high)


def test_any_statistic() -> None:
    x = torch.tensor([1.0, 2.0, 3.0, 10.0])
    found = figure(torch.arange(4), lambda rows: float(x[rows].median()))
    assert (found.value, found.count) == (2.0, 4)
    assert 1.0 <= found.low <= found.high <= 10.0


def test_ranks_and_their_correlation() -> None:
    assert ranks(torch.tensor([5.0, 1.0, 5.0, 2.0])).tolist() == [3.5, 1.0, 3.5, 2.0]
    x = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert rank_correlation(x, x**3) == pytest.approx(1.0)
    assert rank_correlation(x, -x) == pytest.approx(-1.0)
    assert math.isnan(rank_correlation(x, torch.ones(4)))
    assert rank_correlation(x, torch.tensor([2.0, 1.0, 4.0, 3.0])) == pytest.approx(0.6)


def test_a_probe_tells_sides_apart_that_differ_and_no_others() -> None:
    y = torch.tensor([1.0] * 10 + [-1.0] * 10)
    group = torch.arange(10).repeat(2)
    scores = held_out_scores(y[:, None], y, group)
    assert float(accuracy(scores, y).mean()) == 1.0
    assert area_under_curve(scores, y) == 1.0
    same = torch.arange(10).float().repeat(2)[:, None]
    scores = held_out_scores(same, y, group)
    assert float(accuracy(scores, y).mean()) == 0.5
    assert area_under_curve(scores, y) == 0.5
    alone = held_out_scores(y[:2, None], y[:2], torch.zeros(2))
    assert alone.tolist() == [0.0, 0.0]


def test_the_area_and_the_ratio_of_two_sides() -> None:
    y = torch.tensor([1.0, 1.0, -1.0, -1.0])
    assert area_under_curve(torch.tensor([3.0, 1.0, 2.0, 0.0]), y) == 0.75
    assert math.isnan(area_under_curve(torch.zeros(2), y[:2]))
    assert fisher_ratio(torch.tensor([3.0, 5.0, 0.0, 2.0]), y) == pytest.approx(9 / 2)
    assert math.isnan(fisher_ratio(torch.tensor([1.0, 1.0, 0.0, 0.0]), y))
