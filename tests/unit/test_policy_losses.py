"""Objectives: literal values, identities, and which way their gradients point."""

import math

import pytest
import torch

from paretune.ops import policy_losses as losses
from paretune.ops.flow_sde import sde_step

SEED = torch.Generator().manual_seed(1)
CLEAN, NOISE, V, OLD = torch.randn(4, 3, 2, 4, 4, generator=SEED)
SIGMA = torch.tensor([0.2, 0.5, 0.9])
STATE = (1 - SIGMA.view(3, 1, 1, 1)) * CLEAN + SIGMA.view(3, 1, 1, 1) * NOISE


def test_ratio() -> None:
    old = torch.tensor([-1.0, -2.0])
    assert losses.importance_ratio(old, old).tolist() == [1.0, 1.0]
    ratio = losses.importance_ratio(old + math.log(2.0), old)
    assert ratio.tolist() == pytest.approx([2.0, 2.0])


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (1.5, 1.0, -1.2, 0.0),  # good and already likelier: clipped
        (1.5, -1.0, 1.5, 1.0),  # bad and likelier: pushed down
        (0.5, 1.0, -0.5, -1.0),  # good and less likely: pushed up
        (0.5, -1.0, 0.8, 0.0),  # bad and already less likely: clipped
        (1.0, 2.0, -2.0, -2.0),
        (1.1, 3.0, -3.3, -3.0),  # inside the range
    ],
)
def test_clipped_policy_loss(ratio: float, advantage: float, loss: float, gradient: float) -> None:
    rho = torch.tensor([ratio], requires_grad=True)
    got = losses.clipped_policy_loss(rho, torch.tensor([advantage]), clip_range=0.2)
    got.backward()
    assert got.item() == pytest.approx(loss)
    assert rho.grad is not None
    assert rho.grad.item() == pytest.approx(gradient)


def test_clipped_policy_loss_is_a_mean_over_samples() -> None:
    ratio, advantages = torch.tensor([1.5, 0.5]), torch.tensor([1.0, 1.0])
    assert losses.clipped_policy_loss(ratio, advantages, 0.2).item() == pytest.approx(-0.85)


def test_guard_ratio_by_hand() -> None:
    # dlogp c = .2 * .5, mse / 2c = .1 / 1.
    mean = torch.full((1, 1, 2, 2), math.sqrt(0.1))
    got = losses.guard_ratio(torch.tensor([0.3]), torch.tensor([0.1]), mean, torch.zeros(1, 1, 2, 2), 0.5)
    assert got.item() == pytest.approx(math.exp(0.2))


def test_guard_ratio_on_policy_is_1() -> None:
    log_prob = torch.tensor([-0.4, 0.1, 2.0])
    assert losses.guard_ratio(log_prob, log_prob, V, V, 0.3).tolist() == [1.0, 1.0, 1.0]


def test_guard_ratio_of_equal_means_is_the_ratio_to_the_power_of_the_std() -> None:
    got = losses.guard_ratio(torch.tensor([1.0]), torch.tensor([0.0]), V[:1], V[:1], 0.25)
    assert got.item() == pytest.approx(math.exp(0.25))


def test_guard_ratio_is_centred_where_the_plain_one_is_not() -> None:
    """At the middle of the old policy's noise it is 1, however far the new mean has moved."""
    old = sde_step(STATE, OLD, 0.8, 0.6, 0.7, 0.9, noise=torch.zeros_like(STATE))
    new = sde_step(STATE, V, 0.8, 0.6, 0.7, 0.9, sample=old.sample)
    guarded = losses.guard_ratio(new.log_prob, old.log_prob, new.mean, old.mean, old.std)
    assert guarded.tolist() == pytest.approx([1.0, 1.0, 1.0], abs=1e-5)
    assert losses.importance_ratio(new.log_prob, old.log_prob).max() < 0.99


def test_kls_by_hand() -> None:
    a, b = torch.full((2, 1, 1, 1), 0.5), torch.full((2, 1, 1, 1), 0.1)
    assert losses.mean_kl(a, b, drift_std=2.0).item() == pytest.approx(0.02)  # .16 / 8
    assert losses.velocity_kl(a, b).item() == pytest.approx(0.16)


def test_mean_kl_is_that_of_two_gaussians_a_unit_of_time() -> None:
    new = sde_step(STATE, V, 0.8, 0.6, 0.7, 0.9, noise=NOISE)
    ref = sde_step(STATE, OLD, 0.8, 0.6, 0.7, 0.9, noise=NOISE)
    normal = torch.distributions.Normal
    exact = torch.distributions.kl_divergence(normal(new.mean, new.std), normal(ref.mean, ref.std)).mean()
    got = losses.mean_kl(new.mean, ref.mean, new.drift_std)
    assert got.item() == pytest.approx(0.2 * exact.item(), rel=1e-4)  # std^2 = s^2 |dt|


def scalar(value: float) -> torch.Tensor:
    return torch.full((1, 1, 1, 1), value)


def test_nft_loss_by_hand() -> None:
    # v+ = 1.2: x0+ = .4, .16 / .4; v- = .8: x0- = .6, .36 / .6; r = .75; 2 (.75 * .4 + .25 * .6) / .5.
    got = losses.nft_loss(
        scalar(1.4), scalar(1.0), state=scalar(1.0), clean=scalar(0.0), sigma=torch.tensor([0.5]),
        advantages=torch.tensor([1.0]), beta=0.5, advantage_max=2.0,
    )  # fmt: skip
    assert got.item() == pytest.approx(1.8)


@pytest.mark.parametrize(("advantage", "gradient"), [(1.0, -1.0), (-1.0, 1.0), (0.0, 0.0), (9.0, -5.0)])
def test_nft_points_to_good_samples_and_away_from_bad_ones(advantage: float, gradient: float) -> None:
    """On policy the prediction is .5 above the clean sample; a greater v brings it there."""
    v = scalar(1.0).requires_grad_()
    losses.nft_loss(
        v, scalar(1.0), state=scalar(1.0), clean=scalar(0.0), sigma=torch.tensor([0.5]),
        advantages=torch.tensor([advantage]), beta=0.5, advantage_max=5.0,
    ).backward()  # fmt: skip
    assert v.grad is not None
    assert v.grad.item() == pytest.approx(gradient, abs=1e-6)


def test_nft_of_perfect_samples_is_weighted_flow_matching() -> None:
    """beta = 1, A = A_max: A_max sigma |v - (noise - x0)|^2 / mean|v - (noise - x0)|, and its gradient."""
    v, w = V.clone().requires_grad_(), V.clone().requires_grad_()
    nft = losses.nft_loss(v, OLD, STATE, CLEAN, SIGMA, torch.full((3,), 5.0), beta=1.0, advantage_max=5.0)
    error = (w - (NOISE - CLEAN)).flatten(1)
    matching = (5 * SIGMA * (error**2).mean(1) / error.detach().abs().mean(1)).mean()
    torch.testing.assert_close(nft, matching)
    torch.testing.assert_close(
        torch.autograd.grad(nft, v)[0], torch.autograd.grad(matching, w)[0], rtol=1e-4, atol=1e-6
    )


def test_nft_does_not_differentiate_a_perfect_prediction_to_nan() -> None:
    v = (NOISE - CLEAN).requires_grad_()
    losses.nft_loss(v, v.detach(), STATE, CLEAN, SIGMA, torch.zeros(3), 0.5, 5.0).backward()
    assert v.grad is not None
    assert v.grad.isfinite().all()


def test_matching_log_prob_by_hand() -> None:
    v = torch.tensor([[[[0.5, 1.0]]]])  # the target is 2 - 1 = 1
    got = losses.matching_log_prob(v, torch.ones(1, 1, 1, 2), torch.full((1, 1, 1, 2), 2.0))
    assert got.tolist() == pytest.approx([-0.125])


def test_awm_on_policy_is_the_policy_gradient() -> None:
    v = V.clone().requires_grad_()
    log_prob = losses.matching_log_prob(v, CLEAN, NOISE)
    advantages = torch.tensor([1.0, -2.0, 0.5])
    loss = losses.awm_loss(log_prob, log_prob.detach(), advantages, clip_range=1e-4)
    (got,) = torch.autograd.grad(loss, v, retain_graph=True)
    (wanted,) = torch.autograd.grad(-(advantages * log_prob).mean(), v)
    torch.testing.assert_close(got, wanted)
