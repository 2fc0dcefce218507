"""The losses on lists of answers, by published and hand-computed values and by what they reduce to."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import kl_div, logsigmoid, softplus

from paretune.ops.list_losses import (
    asft_link,
    chase_link,
    list_link,
    log1mexp,
    log_odds,
    pair_link,
    revision_link,
    score,
    tree_link,
    triple_link,
)
from paretune.ops.preference_losses import margin_scale, margin_weights, semantic_weights
from paretune.ops.rankings import (
    first_targets,
    flip_threshold,
    ideal_ranks_right,
    pair_targets,
    ranks_right,
    reward_targets,
    swap_weights,
)
from paretune.ops.token_weights import (
    all_tokens,
    common_tokens,
    contrast_scores,
    guided_tokens,
    mean_tokens,
    noncritical_tokens,
    side_tokens,
    step_tokens,
)

LOG2 = math.log(2)
# The running example: beta .1, summed log-ratios 2 and -5, 20 and 25 tokens.
MASK = torch.arange(25) < torch.tensor([20, 25])[None, :, None]
RATIO = MASK * torch.tensor([2 / 20, -5 / 25])[None, :, None]
SHORT = torch.tensor([[[0.5, 0.5, 1.0], [-1.0, -1.0, 0.0]]])  # three tokens and two
SHORT_MASK = SHORT != 0


def _pair(ratio: Tensor, weights: Tensor, beta: float = 0.1) -> float:
    return float(pair_link(score(ratio, weights), beta))


def _near(value: float | Tensor, wanted: float, tolerance: float = 5e-5) -> None:
    assert float(value) == pytest.approx(wanted, abs=tolerance)


def test_dpo_on_the_running_example() -> None:
    _near(_pair(RATIO, all_tokens(MASK)), 0.4032)
    _near(pair_link(torch.zeros(1, 2), 0.1), LOG2)


def test_the_mean_of_a_token() -> None:
    _near(_pair(RATIO, mean_tokens(MASK), beta=5.0), 0.2014)
    same = torch.ones(1, 2, 4, dtype=torch.bool)
    ratio = torch.randn(1, 2, 4, generator=torch.Generator().manual_seed(0))
    assert _pair(ratio, mean_tokens(same)) == pytest.approx(_pair(ratio, all_tokens(same), 0.1 / 4))


@pytest.mark.parametrize(("tail", "wanted"), [(1.0, 0.5130), (0.5, 0.5334), (0.0, 0.5544)])
def test_a_damped_tail(tail: float, wanted: float) -> None:
    _near(_pair(SHORT, common_tokens(SHORT_MASK, tail)), wanted)
    same = torch.ones(1, 2, 4, dtype=torch.bool)
    assert torch.equal(common_tokens(same, tail), all_tokens(same))


def test_a_slower_fall_of_the_worse_answer() -> None:
    _near(_pair(RATIO, side_tokens(MASK, 1.0, 0.5)), 0.4932)
    assert torch.equal(side_tokens(MASK, 1.0, 1.0), all_tokens(MASK))


def test_critical_tokens() -> None:
    ratio = torch.tensor([[[2.0, 0.0], [-1.0, -1.0]]])
    mask = torch.tensor([[[True, False], [True, True]]])
    contrast = torch.tensor([[[0.3, 0.3], [0.9, 0.2]]])  # that of the better answer is not read
    weights = noncritical_tokens(mask, contrast)
    torch.testing.assert_close(score(ratio, weights), torch.tensor([[2.0, -0.9]]))
    _near(_pair(ratio, weights), 0.5586)
    assert torch.equal(noncritical_tokens(mask, torch.zeros(1, 2, 2)), all_tokens(mask))
    good, bad = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    _near(contrast_scores(good, bad, torch.tensor([0])), 0.9820)
    _near(contrast_scores(good, bad, torch.tensor([1])), 0.0180)
    _near(contrast_scores(good, bad, torch.tensor([0]), strength=0.0), math.exp(2) / (1 + math.exp(2)))


def test_a_guide() -> None:
    mask = torch.ones(1, 2, 2, dtype=torch.bool)
    guide = 0.1 * torch.tensor([[[2.0, 0.0], [-2.0, 0.0]]])
    weights = guided_tokens(mask, guide, 0.5)
    torch.testing.assert_close(weights, torch.tensor([[[1.1, 1.0], [1.1, 1.0]]]))
    ratio = torch.tensor([[[1.0, 1.0], [-1.0, -1.0]]])
    _near(_pair(ratio, weights), 0.5050)
    _near(_pair(ratio, guided_tokens(mask, guide, 0.0)), 0.5130)
    _near(_pair(ratio, guided_tokens(mask, torch.zeros(1, 2, 2), 0.5)), 0.5130)


def test_steps_weigh_by_their_means_up_to_the_shortest_answer() -> None:
    step = torch.tensor([[[0, 0, 1, -1, -1]]])
    weight = torch.tensor([[[2.0, 2.0, 1.0, 0.0, 0.0]]])
    ratio = torch.tensor([[[0.5, 1.5, -1.0, 9.0, 9.0]]])  # means 1 and -1
    _near(score(ratio, step_tokens(step, weight)), 1 / 3)
    longer = torch.tensor([[[0, 1, 2], [0, 1, -1]]])
    equal = torch.ones(1, 2, 3)
    torch.testing.assert_close(
        step_tokens(longer, equal), torch.tensor([[[0.5, 0.5, 0.0], [0.5, 0.5, 0.0]]])
    )


@pytest.mark.parametrize(("gamma", "wanted"), [(0.5, 0.2873), (1.0, 0.4032)])
def test_a_weaker_reference(gamma: float, wanted: float) -> None:
    policy, reference = torch.tensor([[15.0, 0.0]]), torch.tensor([[8.0, 0.0]])
    _near(pair_link(policy - gamma * reference, 0.1), wanted)


def test_simpo() -> None:
    _near(pair_link(torch.tensor([[-1.0, -1.2]]), 2.5, 1.4), 1.2412)


def test_the_weight_of_a_margin() -> None:
    found = margin_weights(torch.tensor([-3.0, -1, 0, 1, 2, 4]), at=2.0)
    wanted = torch.tensor([1, 0.7569, 1, 1.0894, 1, 0.9321])
    torch.testing.assert_close(found, wanted, atol=5e-5, rtol=0)
    _near(margin_weights(torch.tensor(1.0), at=6.907), 1.2037)
    for most in (2.0, 4.0):
        _near(margin_scale(torch.tensor(2.0), 1 / most, most, at=2.0), 1.0)


def test_the_weight_of_a_drift() -> None:
    _near(semantic_weights(torch.tensor(0.5), 2.0), 0.3679)
    _near(semantic_weights(torch.tensor(0.5), 0.0), 1.0)


def test_asft_and_its_bound() -> None:
    log_p = torch.tensor([[0.6, 0.25]]).log()
    _near(asft_link(log_p, 1.0) + log_p[0, 0], 0.7985)
    _near(asft_link(log_p, 1.0), 1.3093)
    odds = log_odds(log_p)
    orpo = -log_p[0, 0] - logsigmoid(odds[0, 0] - odds[0, 1])
    _near(orpo, 0.7115)
    drawn = torch.rand(200, 2, generator=torch.Generator().manual_seed(0)).log()
    odds = log_odds(drawn)
    assert bool((-drawn[:, 0] + softplus(odds[:, 1] - odds[:, 0]) <= asft_link(drawn, 1.0)).all())


def test_log1mexp_has_no_hole_near_certainty() -> None:
    x = torch.tensor([0.0, -1e-9, -1e-3, -0.6931, -5.0, -50.0], requires_grad=True)
    y = log1mexp(x)
    assert bool(torch.isfinite(y).all())
    torch.testing.assert_close(y[2:5], torch.log1p(-torch.exp(x[2:5])), atol=1e-4, rtol=1e-4)
    y.sum().backward()
    assert x.grad is not None
    assert bool(torch.isfinite(x.grad).all())


def test_a_list_to_a_soft_target() -> None:
    s = torch.tensor([[1.0, 0.0, -1.0]])
    q = reward_targets(s, 0.5)
    torch.testing.assert_close(q, torch.softmax(torch.tensor([[2.0, 0.0, -2.0]]), 1))
    _near(list_link(s, q, 1.0), 0.5567)
    _near(kl_div(s.log_softmax(1), q, reduction="sum"), 0.1156)
    _near(list_link(torch.zeros(1, 3), q, 1.0), math.log(3))
    torch.testing.assert_close(list_link(s + 7, q, 1.0), list_link(s, q, 1.0))
    _near(list_link(torch.tensor([[0.7, 0.0]]), torch.tensor([[0.8, 0.2]]), 1.0), 0.5432)
    pair = torch.tensor([[2.0, -5.0]])
    torch.testing.assert_close(list_link(pair, first_targets(pair), 10.0), pair_link(pair, 0.1))
    _near(pair_targets(torch.tensor([1.0]))[0, 0], 1 / (1 + math.exp(-1)))


def test_an_absent_answer_changes_nothing() -> None:
    s, values = torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[1.0, 0.5, 0.0]])
    longer, more = torch.tensor([[1.0, 0.0, -1.0, 4.0]]), torch.tensor([[1.0, 0.5, 0.0, 0.0]])
    present = torch.tensor([[True, True, True, False]])
    q = reward_targets(more, 0.5, present)
    torch.testing.assert_close(q[:, :3], reward_targets(values, 0.5))
    torch.testing.assert_close(
        list_link(longer, q, 1.0, present), list_link(s, reward_targets(values, 0.5), 1.0)
    )
    torch.testing.assert_close(
        tree_link(longer, more, 1.0, present=present), tree_link(s, values, 1.0)
    )


def test_a_tree() -> None:
    s, values = torch.tensor([[0.3, 0.6, -0.2]]), torch.tensor([[1.0, 0.5, 0.0]])
    weights = swap_weights(values, s)[0]
    torch.testing.assert_close(
        torch.stack([weights[0, 1], weights[0, 2], weights[1, 2]]), torch.tensor([0.3119, 0.1889, 0.2988]),
        atol=5e-5, rtol=0,
    )  # fmt: skip
    _near(tree_link(s, values, 1.0), 0.4669)
    _near(tree_link(s, values, 1.0, weighted=False), 1.6995)
    pair = torch.tensor([[0.3, 0.1]])
    own = tree_link(pair, torch.tensor([[1.0, 0.0]]), 0.5)
    _near(own / pair_link(pair, 0.5), 0.5325)
    _near(tree_link(pair, torch.tensor([[0.4, 0.4]]), 0.5), 0.0)


def test_revisions() -> None:
    r = torch.tensor([[0.0] * 6, [5, 0, 5, 0, 2.5, -2.5], [2, 0, 1, -1, 1, -1]])
    wanted = torch.tensor([0.6, 0.0, 0.194])
    torch.testing.assert_close(revision_link(r, 0.1, 0.8), wanted, atol=1e-6, rtol=0)
    _near(revision_link(r, 0.1, 1.0)[0], 0.5)
    _near(revision_link(r, 0.1, 0.0)[0], 1.0)
    _near(revision_link(r, 0.1, 1.0)[2], 0.18)
    _near(revision_link(r, 0.1, 0.0)[2], 0.25)
    deaf = torch.tensor([[2.0, -1.0, 2.0, -1.0, 2.0, -1.0]])
    _near(revision_link(deaf, 0.1, 1.0), 2 * 0.1**2 * (3.0 - 1 / 0.2) ** 2)


def test_two_policies_that_chase_each_other() -> None:
    fast, slow = torch.tensor([7.0]), torch.tensor([3.0])
    _near(chase_link(fast, slow, 0.1, 0.0), 0.4032)
    _near(chase_link(slow, fast, 0.1, 0.0), 0.5544)
    _near((chase_link(fast, slow, 0.1, 0.1) - chase_link(fast, slow, 0.1, 0.0)) / 0.1, 0.5130)
    _near(chase_link(fast, slow, 0.1, 0.1), 0.4545)
    _near(chase_link(slow, fast, 0.1, -0.1), 0.5031)
    for share in (0.1, -0.1):
        _near(chase_link(torch.zeros(1), torch.zeros(1), 0.1, share), (1 + share) * LOG2)
    far = torch.tensor([500.0], requires_grad=True)
    loss = chase_link(far, torch.zeros(1), 1.0, -0.5)
    assert float(loss.detach()) > -6
    loss.sum().backward()
    assert float(far.grad) == pytest.approx(0.0, abs=1e-6)  # type: ignore[arg-type]


def test_the_best_is_learned_and_the_second_beats_the_worst() -> None:
    log_p = torch.tensor([[0.0, -5.0, -20.0]])
    _near(triple_link(log_p, torch.tensor([-0.5]), 0.01, 1.0), 1.1210)
    torch.testing.assert_close(
        triple_link(log_p, torch.tensor([-0.5]), 0.01, 0.0), pair_link(log_p[:, 1:], 0.01)
    )


def test_what_a_model_ranks_and_what_it_ideally_would() -> None:
    assert ranks_right(torch.tensor([-1.0, -3.0]), torch.tensor([-2.0, -2.0])).tolist() == [True, False]
    share, gap = torch.tensor(0.75), torch.tensor(-5.0)
    assert bool(ideal_ranks_right(share, gap, 0.1))
    assert not bool(ideal_ranks_right(share, gap, 1.0))
    assert not bool(ideal_ranks_right(share, torch.tensor(-30.0), 0.1))
    _near(flip_threshold(torch.tensor(-5.0), 0.1), 0.4741)
    _near(flip_threshold(torch.tensor(-30.0), 0.1), 0.0486)
