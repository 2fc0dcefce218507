"""Advantages: literal values, and what is dropped."""

import pytest
import torch

from paretune.ops.advantages import (
    best_and_worst,
    group_advantages,
    informative_groups,
    joint_advantages,
)

SCORES = torch.tensor([[-1.0, 1.0], [-7.0, 7.0]])


@pytest.mark.parametrize(
    ("std", "wanted"),
    [("group", [[-1.0, 1.0], [-1.0, 1.0]]), ("global", [[-0.2, 0.2], [-1.4, 1.4]])],
)
def test_by_the_std_of_the_group_or_of_the_batch(std: str, wanted: list[list[float]]) -> None:
    torch.testing.assert_close(group_advantages(SCORES, std, eps=0.0), torch.tensor(wanted))


def test_the_group_mean_is_taken_off_whatever_the_std() -> None:
    for std in ("group", "global"):
        shifted = group_advantages(SCORES + torch.tensor([[3.0], [-2.0]]), std, eps=0.0)
        torch.testing.assert_close(shifted.sum(1), torch.zeros(2))


def test_eps_keeps_a_tiny_spread_small() -> None:
    got = group_advantages(torch.tensor([[0.0, 2e-4]]))  # 1e-4 / (1e-4 + 1e-4)
    torch.testing.assert_close(got, torch.tensor([[-0.5, 0.5]]))


def test_clipped_on_both_sides() -> None:
    lucky = torch.zeros(1, 100)
    lucky[0, 0] = 1.0  # unclipped (1 - .01) / sqrt(.0099) = 9.95
    assert group_advantages(lucky)[0, 0] == 5
    assert group_advantages(-lucky)[0, 0] == -5
    assert group_advantages(lucky, clip=1e3)[0, 0].item() == pytest.approx(9.94, abs=0.01)


def test_an_unknown_std_is_refused() -> None:
    with pytest.raises(ValueError, match="'batch'"):
        group_advantages(SCORES, "batch")


def test_groups_without_a_difference_are_dropped() -> None:
    scores = torch.tensor([[0.3, 0.3, 0.3], [0.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.2, 0.2, 0.3]])
    assert informative_groups(group_advantages(scores)).tolist() == [1, 3]
    assert informative_groups(group_advantages(scores[:1])).tolist() == []


@pytest.mark.parametrize("std", ["group", "global"])
@pytest.mark.parametrize("size", [3, 12, 24])
def test_equal_scores_are_dropped_also_where_their_mean_rounds(std: str, size: int) -> None:
    for value in torch.linspace(0.01, 30.0, 50):
        assert group_advantages(value.expand(1, size), std).tolist() == [[0.0] * size]


def test_joint_orders_differ_where_one_reward_has_the_larger_scale() -> None:
    scores = torch.tensor([[[0.0, 2.0]], [[0.0, -20.0]]])
    half = torch.tensor([0.5, 0.5])
    summed = joint_advantages(scores, half, "sum_then_normalise")  # the sum is 0, -9
    torch.testing.assert_close(summed, torch.tensor([[1.0, -1.0]]), atol=1e-3, rtol=0)
    each = joint_advantages(scores, half, "normalise_then_sum")  # they cancel
    torch.testing.assert_close(each, torch.zeros(1, 2), atol=1e-3, rtol=0)


def test_joint_weights_count() -> None:
    scores = torch.tensor([[[0.0, 2.0]], [[0.0, -20.0]]])
    got = joint_advantages(scores, torch.tensor([0.75, 0.25]), "normalise_then_sum")
    torch.testing.assert_close(got, torch.tensor([[-0.5, 0.5]]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("order", ["sum_then_normalise", "normalise_then_sum"])
def test_joint_of_one_reward_is_its_own(order: str) -> None:
    joint = joint_advantages(SCORES[None], torch.ones(1), order)
    torch.testing.assert_close(joint, group_advantages(SCORES))


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(ValueError, match="'both'"):
        joint_advantages(SCORES[None], torch.ones(1), "both")


def test_best_and_worst_keep_the_ends_of_each_group() -> None:
    advantages = torch.tensor([[0.5, -2.0, 0.1, 1.4], [0.0, 0.0, 0.0, 0.0]])
    assert best_and_worst(advantages, 2).tolist() == [
        [False, True, False, True], [True, False, False, True],
    ]  # fmt: skip
    assert best_and_worst(advantages, 4).all()
