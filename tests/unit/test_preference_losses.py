"""Comparisons, weights and targets: literal values, identities, and which way their gradients point."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from paretune.ops import preference_losses as losses
from paretune.ops.advantages import group_advantages
from paretune.ops.inversion import invert, mean_velocity

PAIR = torch.tensor([[1.0, 0.0]])  # the first sample is the better one
PHI = torch.tensor([[1.0, 2 / 3, 1 / 3, 0.0]])
LOG2 = math.log(2)


def rewards(*values: float) -> torch.Tensor:
    return torch.tensor([values])


def near(value: float) -> object:
    return pytest.approx(value, abs=2e-6)


# ---------------------------------------------------------------- literal values


@pytest.mark.parametrize(("gap", "loss"), [(0.0, LOG2), (0.01, 0.474077), (-0.01, 0.974077)])
def test_pair(gap: float, loss: float) -> None:
    assert losses.pair_loss(50 * rewards(gap, 0.0), PAIR).item() == near(loss)


@pytest.mark.parametrize(("gap", "first"), [(0.0, -25.0), (0.01, -18.877033)])
def test_the_coefficients_of_a_pair(gap: float, first: float) -> None:
    r = rewards(gap, 0.0).requires_grad_()
    c = losses.coefficients(losses.pair_loss(50 * r, PAIR).sum(), r)
    assert c.tolist()[0] == [near(first), near(-first)]


@pytest.mark.parametrize(("p", "loss"), [(0.5, 0.693147), (0.6, 0.644397), (1.0, 0.474077)])
def test_smooth(p: float, loss: float) -> None:
    z = rewards(0.05, 0.0).requires_grad_()
    got = losses.smooth_loss(z, PAIR, torch.full((1, 2, 2), p), 10)
    assert got.item() == near(loss)
    if p == 0.5:
        assert losses.coefficients(got.sum(), z).tolist() == [[0.0, 0.0]]


def test_soft_labels_of_scaled_scores() -> None:
    p = losses.soft_labels(losses.scaled(torch.tensor([[7.0, 3.0]])))[0, 0, 1].item()
    assert p == near(0.731059)
    assert 10 * (2 * p - 1) == near(4.621172)
    assert losses.scaled(torch.ones(2, 2)).tolist() == [[0.0, 0.0]] * 2


def test_gains_discounts_and_their_products() -> None:
    assert losses.dcg_gains(PHI)[0].tolist() == [near(v) for v in (1, 0.587401, 0.259921, 0)]
    wanted = (1.442695, 0.910239, 0.721348, 0.621335)
    assert losses.dcg_discounts(PHI)[0].tolist() == [near(v) for v in wanted]
    w = losses.dcg_weights(PHI)[0]
    found = [w[i, j].item() for i, j in ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))]
    assert found == [near(v) for v in (0.219691, 0.533854, 0.821360, 0.061858, 0.169703, 0.025995)]


def test_dcg() -> None:
    assert losses.dcg_loss(torch.zeros(1, 4), PHI).item() == near(1.270165)
    assert losses.dcg_loss(torch.zeros(1, 2), PAIR).item() == near(0.369070)
    assert losses.dcg_loss(torch.zeros(1, 4), torch.ones(1, 4)).item() == 0


def test_margin_weights() -> None:
    h = torch.tensor([0.0, 1.0, 2.0, 4.0, -1.0, -3.0])
    wanted = [near(v) for v in (1, 1.089430, 1, 0.932075, 0.756903, 1)]
    assert losses.margin_weights(h).tolist() == wanted
    assert losses.margin_scale(h[[0, 2]]).tolist() == [near(1.680479), near(1)]


def test_semantic_weights() -> None:
    assert losses.semantic_weights(torch.tensor([0.5, 0.0]), 1.0).tolist() == [near(0.606531), 1.0]


def test_anchored() -> None:
    q = losses.list_targets(torch.tensor([[1.0, 0.0, 0.0, -1.0]]), 0.5, standardise=False)
    assert q[0].tolist() == [near(v) for v in (0.775803, 0.104994, 0.104994, 0.014209)]
    z = torch.zeros(1, 4, requires_grad=True)
    loss = losses.anchored_loss(z, q, 0.8)
    assert loss.item() == near(0.655627)
    c = 0.8 * losses.coefficients(loss.sum(), z)
    assert c[0].tolist() == [near(v) for v in (-0.525803, 0.145006, 0.145006, 0.235791)]
    assert losses.anchored_loss(rewards(0.4, 0.0), PAIR, 0.8).item() == near(0.474077)


def test_list_targets_do_not_see_the_scale_of_the_scores() -> None:
    q = losses.list_targets(PHI, 0.5)
    torch.testing.assert_close(losses.list_targets(100 * PHI - 7, 0.5), q)


def test_plackett() -> None:
    assert losses.plackett_loss(torch.zeros(1, 3), PHI[:, :3]).item() == near(1.791759)
    assert losses.plackett_loss(torch.zeros(1, 4), PHI).item() == near(3.178054)


def test_kto() -> None:
    r, good = rewards(0.001, 0.001), torch.tensor([[True, False]])
    b = torch.tensor(0.0)
    for rows, loss in ((good[:, :1], 0.268941), (good[:, 1:], 0.731059)):
        assert losses.kto_loss(r[:, :1], rows, 1000, b).item() == near(loss)
    assert losses.kto_loss(torch.zeros(1, 2), good, 1000, b).item() == near(0.5)
    assert losses.kto_baseline(rewards(0.3, 0.1), good).item() == near(0.2)
    three = torch.tensor([[True, False, False]])  # the classes weigh alike, however many samples they have
    assert losses.kto_baseline(rewards(0.4, 0.1, 0.1), three).item() == near(0.25)


@pytest.mark.parametrize(("gap", "loss"), [(0.0, 0.001), (0.01, 0.0), (-0.01, 0.011)])
def test_hinge(gap: float, loss: float) -> None:
    assert losses.hinge_loss(rewards(gap, 0.0), PAIR, 0.001).item() == near(loss)


@pytest.mark.parametrize(("gap", "weight"), [(0.0, 0.5), (0.001, 0.4), (-0.001, 0.6), (1.0, 0.01)])
def test_linear(gap: float, weight: float) -> None:
    r = rewards(gap, 0.0)
    assert losses.linear_weights(r, 500, 0.01)[0, 0, 1].item() == near(weight)
    e = rewards(0.3, 0.5)
    assert losses.linear_loss(e, r, PAIR, 500, 0.01).item() == near(-0.2 * weight)


def test_mapo() -> None:
    assert losses.mapo_loss(rewards(0.1, 0.1), PAIR, 0.1, 1000).item() == near(0.169315)
    # 1000 times a difference of two float32 numbers near 1
    assert losses.mapo_loss(rewards(0.1, 0.11).double(), PAIR, 0.1, 1000).item() == near(0.108228)


def test_cells_are_lists_of_their_own() -> None:
    """Two frames, of which the first is learned and the second is not."""
    z = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert losses.pair_loss(z, PAIR.expand(2, 2)).mean().item() == near(0.503204)
    assert losses.pair_loss(z.mean(0, keepdim=True), PAIR).item() == near(0.474077)
    labels = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    kept = losses.comparable(labels)
    assert kept.tolist() == [True, False]
    assert losses.pair_loss(z, labels)[kept].mean().item() == near(0.313262)
    assert losses.pair_loss(z, torch.zeros(2, 2)).tolist() == [0.0, 0.0]


def test_steps_from_one_state() -> None:
    first, second = torch.full((1, 4), 0.5), torch.full((1, 4), 0.3)
    mean, reference = torch.full((1, 4), 0.2), torch.full((1, 4), 0.1)
    gap = losses.shared_mean_gap(first, second, mean, reference, 0.5)
    assert 10 * gap.item() == near(0.8)

    def log_ratio(x: torch.Tensor) -> float:
        return (((x - reference) ** 2 - (x - mean) ** 2).mean() / (2 * 0.25)).item()

    assert log_ratio(first) - log_ratio(second) == near(gap.item())
    assert losses.pair_loss(10 * torch.stack([gap, 0 * gap], 1), PAIR).item() == near(0.371101)


@pytest.mark.parametrize(("beta", "floor"), [(10, 0.126131), (0.1, 0.683164)])
def test_the_clamp_has_a_floor(beta: float, floor: float) -> None:
    r = rewards(3.0, -3.0).requires_grad_()
    loss = losses.pair_loss(beta * losses.clamped(r, 0.1), PAIR)
    assert loss.item() == near(floor)
    assert losses.coefficients(loss.sum(), r).tolist() == [[0.0, 0.0]]


def test_win_rates() -> None:
    scores = torch.tensor([[[3.0, 2.0, 1.0]], [[0.1, 0.9, 0.1]]])
    assert losses.win_rates(scores)[0].tolist() == [near(2.5 / 4), near(3 / 4), near(0.5 / 4)]
    ranked = torch.arange(4.0).flip(0).expand(5, 1, 4)  # five rewards that agree
    assert losses.win_rates(ranked)[0].tolist() == [near(v) for v in PHI[0].tolist()]


def test_agreement_counts_pairs_that_both_order() -> None:
    first = torch.tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 2.0]])
    assert losses.agreement(first, first) == (1.0, 5)
    assert losses.agreement(first, -first) == (0.0, 5)
    second = torch.tensor([[3.0, 1.0, 2.0], [5.0, 5.0, 6.0]])  # two of three alike; then one of one
    assert losses.agreement(first, second) == (3 / 4, 4)
    assert losses.agreement(first, torch.ones(2, 3)) == (0.0, 0)


# ---------------------------------------------------------------- identities


def _comparisons() -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """Every comparison of the errors e [1, 3] of one list, with a reference of 0.4."""
    score = torch.tensor([[2.0, 0.5, 1.0]])
    good, b = score > 1.5, torch.tensor(0.01)
    return {
        "pair": lambda e: losses.pair_loss(5 * (0.4 - e), score),
        "smooth": lambda e: losses.smooth_loss(5 * (0.4 - e), score, losses.soft_labels(score), 10),
        "dcg": lambda e: losses.dcg_loss(5 * (0.4 - e), score),
        "anchored": lambda e: losses.anchored_loss(5 * (0.4 - e), losses.list_targets(score, 0.5), 0.8),
        "plackett": lambda e: losses.plackett_loss(5 * (0.4 - e), score),
        "group": lambda e: losses.group_loss(5 * (0.4 - e), group_advantages(score)),
        "kto": lambda e: losses.kto_loss(0.4 - e, good, 5, b),
        "hinge": lambda e: losses.hinge_loss(0.4 - e, score, 0.3),
        "linear": lambda e: losses.linear_loss(e, 0.4 - e, score, 5, 0.01),
        "fit": lambda e: losses.fit_loss(e, torch.tensor([[0.2, 0.7, 0.1]])),
        "mapo": lambda e: losses.mapo_loss(e, score, 0.1, 3),
    }


@pytest.mark.parametrize("name", _comparisons())
def test_the_loss_by_coefficients_has_the_gradient_of_one_pass(name: str) -> None:
    compare = _comparisons()[name]
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(3, 6, generator=generator)
    weight = torch.randn(6, generator=generator, requires_grad=True)

    def errors(rows: torch.Tensor) -> torch.Tensor:
        return (rows @ weight / 5) ** 2

    compare(errors(x)[None]).sum().backward()
    assert weight.grad is not None
    whole, weight.grad = weight.grad.clone(), None
    assert whole.abs().max() > 1e-3
    leaf = errors(x).detach()[None].requires_grad_()
    c = losses.coefficients(compare(leaf).sum(), leaf)
    for row, share in zip(x, c[0], strict=True):  # one sample at a time
        (share * errors(row[None])).sum().backward()
    torch.testing.assert_close(weight.grad, whole, atol=1e-6, rtol=1e-6)


def test_a_list_of_a_batch_has_the_loss_that_it_has_alone() -> None:
    generator = torch.Generator().manual_seed(5)
    e, score = torch.rand(2, 4, 3, generator=generator)
    q = losses.list_targets(score, 0.5)
    compared: dict[str, Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]] = {
        "pair": lambda e, s, q: losses.pair_loss(-e, s),
        "smooth": lambda e, s, q: losses.smooth_loss(-e, s, losses.soft_labels(s), 10),
        "dcg": lambda e, s, q: losses.dcg_loss(-e, s),
        "anchored": lambda e, s, q: losses.anchored_loss(-e, q, 0.8),
        "plackett": lambda e, s, q: losses.plackett_loss(-e, s),
        "group": lambda e, s, q: losses.group_loss(-e, group_advantages(s)),
        "kto": lambda e, s, q: losses.kto_loss(-e, s > 0.5, 5, torch.tensor(-0.4)),
        "hinge": lambda e, s, q: losses.hinge_loss(-e, s, 0.3),
        "linear": lambda e, s, q: losses.linear_loss(e, -e, s, 5, 0.01),
        "fit": lambda e, s, q: losses.fit_loss(e, q),
        "mapo": lambda e, s, q: losses.mapo_loss(e, s, 0.1, 3),
    }
    for name, compare in compared.items():
        together = compare(e, score, q)
        alone = [compare(e[i : i + 1], score[i : i + 1], q[i : i + 1]) for i in range(4)]
        torch.testing.assert_close(together, torch.cat(alone), msg=name)


def test_of_two_samples_the_list_losses_are_the_pair_loss() -> None:
    z = torch.tensor([[0.7, -0.2], [-1.3, 0.4]])
    score = PAIR.expand(2, 2)
    pair = losses.pair_loss(z, score)
    torch.testing.assert_close(losses.plackett_loss(z, score), pair)
    torch.testing.assert_close(losses.anchored_loss(z, score, 1.0), pair)
    torch.testing.assert_close(losses.group_loss(z, torch.tensor([[1.0, -1.0]])), pair)
    torch.testing.assert_close(losses.smooth_loss(z, score, torch.ones(2, 2, 2), 1.0), pair)
    swapped = losses.pair_loss(z, score.flip(1))
    torch.testing.assert_close(swapped, losses.pair_loss(-z, score))


def test_equal_errors_have_the_columns_value_and_cancel() -> None:
    """At the reference: log 2, log K!, log K - H(q); what is shared by all samples has no gradient."""
    score = torch.tensor([[3.0, 1.0, 2.0]])
    q = losses.list_targets(score, 0.5)
    e = torch.zeros(1, 3, requires_grad=True)
    values = {
        losses.pair_loss(-e, score): LOG2,
        losses.plackett_loss(-e, score): math.log(6),
        losses.anchored_loss(-e, q, 1.0): math.log(3) + (q * q.log()).sum().item(),
        losses.group_loss(-e, group_advantages(score)): LOG2,
        losses.dcg_loss(-e, score): LOG2 * losses.dcg_weights(score)[0].triu(1).sum().item(),
    }
    for loss, value in values.items():
        assert loss.item() == near(value)
        assert losses.coefficients(loss.sum(), e).sum().item() == pytest.approx(0, abs=1e-5)


def test_ties_are_no_pairs() -> None:
    score = torch.tensor([[1.0, 0.95, 0.0]])
    z = torch.tensor([[2.0, 0.0, 1.0]])
    pairs = [math.log1p(math.exp(-g)) for g in (2.0, 1.0, -1.0)]
    assert losses.pair_loss(z, score).item() == near(sum(pairs) / 3)
    assert losses.pair_loss(z, score, tie=0.1).item() == near((pairs[1] + pairs[2]) / 2)
    assert losses.comparable(score, tie=1.0).tolist() == [False]


# ---------------------------------------------------------------- inversion


@pytest.mark.parametrize(
    ("renoise", "state", "velocity"), [(False, 1.5, 1.0), (True, 1.625, 1.25)], ids=["once", "renoise"]
)
def test_inversion_of_a_growing_velocity(renoise: bool, state: float, velocity: float) -> None:
    clean = torch.ones(1, 3)
    (x,) = invert(clean, (0.0, 0.5), lambda x, sigma: x, renoise)
    assert x[0].tolist() == [state] * 3
    assert mean_velocity(x, clean, torch.tensor([0.5]))[0].tolist() == [velocity] * 3
    assert abs(state - math.exp(0.5)) < (0.03 if renoise else 0.15)


def test_inversion_of_a_constant_velocity_is_exact_on_every_grid() -> None:
    clean = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    c = torch.tensor([0.3, -1.0, 2.0, 0.1])
    levels = (0.0, 0.1, 0.45, 1.0)
    for renoise in (False, True):
        states = list(invert(clean, levels, lambda x, sigma: c.expand_as(x), renoise))
        for sigma, state in zip(levels[1:], states, strict=True):
            u = mean_velocity(state, clean, torch.full((2,), sigma))
            torch.testing.assert_close(u, c.expand(2, 4))


def test_inversion_asks_at_the_level_of_the_destination() -> None:
    asked: list[float] = []

    def velocity(x: torch.Tensor, sigma: float) -> torch.Tensor:
        asked.append(sigma)
        return x

    list(invert(torch.ones(1, 2), (0.0, 0.4, 1.0), velocity, renoise=True))
    assert asked == [0.4, 0.4, 1.0, 1.0]


# ---------------------------------------------------------------- from noise prediction to velocities


def test_errors_of_noise_and_of_samples_are_errors_of_velocities() -> None:
    """Of noise they are (1 - s)^2 times those of the velocity, of samples s^2 times, at any velocity."""
    clean, noise, velocity = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
    s = 0.3
    x, u = (1 - s) * clean + s * noise, noise - clean
    own = (velocity - u) ** 2
    torch.testing.assert_close((x + (1 - s) * velocity - noise) ** 2, (1 - s) ** 2 * own)
    torch.testing.assert_close((x - s * velocity - clean) ** 2, s**2 * own)
