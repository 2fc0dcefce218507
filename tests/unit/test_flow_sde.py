"""Steps of the samplers: values worked out by hand from the formulas, and identities."""

import math

import pytest
import torch

from paretune.ops.flow_sde import cps_step, dance_step, euler_step, random_steps, sde_step

X, V = torch.tensor([[2.0]]), torch.tensor([[0.5]])
WIDE = torch.Generator().manual_seed(0)
XS, VS, ZS = torch.randn(3, 2, 4, 4, 4, generator=WIDE)


def test_sde_at_eta_0_is_the_euler_step() -> None:
    step = sde_step(XS, VS, 0.8, 0.6, eta=0.0, sigma_second=0.9, noise=ZS)
    assert step.std == 0
    torch.testing.assert_close(step.sample, euler_step(XS, VS, -0.2), rtol=0, atol=1e-6)


def test_sde_step_by_hand() -> None:
    # s = sqrt(.8 / .2) = 2, dt = -.2: mean = 2 (1 - .5) + .5 (1 + .5)(-.2), std = 2 sqrt(.2).
    step = sde_step(X, V, 0.8, 0.6, eta=1.0, sigma_second=0.9, noise=torch.ones(1, 1))
    assert step.drift_std == pytest.approx(2.0)
    assert step.mean.item() == pytest.approx(0.85)
    assert step.std == pytest.approx(0.8944272)
    assert step.sample.item() == pytest.approx(1.7444272)
    assert step.log_prob.tolist() == pytest.approx([-1.3073668])


def test_sde_step_at_sigma_1_takes_the_second_sigma() -> None:
    # s^2 = .25 / (1 - .9) = 2.5, dt = -.1: mean = 2 (1 - .125) + .5 (-.1), std = sqrt(.25).
    step = sde_step(X, V, 1.0, 0.9, eta=0.5, sigma_second=0.9, sample=torch.tensor([[2.2]]))
    assert step.mean.item() == pytest.approx(1.7)
    assert step.std == pytest.approx(0.5)
    assert step.log_prob.tolist() == pytest.approx([-0.7257914])


def test_dance_step_by_hand() -> None:
    # x0 = 2 - .8 (.5) = 1.6, score = -(2 - .2 (1.6)) / .64 = -2.625, dt = -.2:
    # mean = 2 - .2 (.5) - .25^2 / 2 (-2.625)(-.2), std = .25 sqrt(.2).
    step = dance_step(X, V, 0.8, 0.6, eta=0.25, noise=torch.ones(1, 1))
    assert step.mean.item() == pytest.approx(1.88359375)
    assert step.std == pytest.approx(0.1118034)
    assert step.sample.item() == pytest.approx(1.88359375 + 0.1118034)
    assert step.drift_std == 0.25


def test_dance_step_is_flow_grpos_with_a_constant_drift() -> None:
    # At sigma = .8 Flow-GRPO's drift is eta sqrt(4).
    ours, theirs = dance_step(XS, VS, 0.8, 0.6, 1.4, ZS), sde_step(XS, VS, 0.8, 0.6, 0.7, 0.9, ZS)
    torch.testing.assert_close(ours.sample, theirs.sample)
    torch.testing.assert_close(ours.log_prob, theirs.log_prob)
    assert dance_step(XS, VS, 0.3, 0.2, 1.4, ZS).drift_std == 1.4
    torch.testing.assert_close(dance_step(XS, VS, 0.8, 0.6, 0.0, ZS).sample, euler_step(XS, VS, -0.2))


def test_random_steps_are_drawn_from_the_window_in_order() -> None:
    draws = {random_steps((2, 7), 3, torch.Generator().manual_seed(i)) for i in range(50)}
    assert all(len(d) == 3 and list(d) == sorted(set(d)) for d in draws)
    assert {step for d in draws for step in d} == {2, 3, 4, 5, 6}
    assert len(draws) > 5


def test_all_of_the_steps_need_no_draw() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert random_steps((2, 5), 3, generator) == (2, 3, 4)
    assert torch.equal(generator.get_state(), before)


def test_log_prob_is_a_mean_over_dimensions() -> None:
    noise = torch.tensor([[1.0, 3.0]])
    step = sde_step(X.expand(1, 2), V.expand(1, 2), 0.8, 0.6, 1.0, 0.9, noise=noise)
    assert step.log_prob.tolist() == pytest.approx([-2.5 + 0.1115718 - 0.9189385])


@pytest.mark.parametrize("sigma", [1.0, 0.7, 0.2])
def test_scoring_the_drawn_sample_gives_its_log_prob_again(sigma: float) -> None:
    drawn = sde_step(XS, VS, sigma, 0.1, 0.7, 0.9, noise=ZS)
    again = sde_step(XS, VS, sigma, 0.1, 0.7, 0.9, sample=drawn.sample)
    assert torch.equal(again.log_prob, drawn.log_prob)
    drawn = cps_step(XS, VS, sigma, 0.1, 0.7, noise=ZS)
    again = cps_step(XS, VS, sigma, 0.1, 0.7, sample=drawn.sample)
    assert torch.equal(again.log_prob, drawn.log_prob)


def test_cps_step_by_hand() -> None:
    # x0 = 1.6, x1 = 2.1, std = .6 sin(pi / 4), mean = .4 x0 + sqrt(.36 - .18) x1.
    step = cps_step(X, V, 0.8, 0.6, eta=0.5, noise=torch.full((1, 1), 2.0))
    assert step.std == pytest.approx(0.4242641)
    assert step.mean.item() == pytest.approx(1.5309546)
    assert step.sample.item() == pytest.approx(2.3794827)
    assert step.log_prob.tolist() == pytest.approx([-0.72])


@pytest.mark.parametrize("eta", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize(("sigma", "sigma_next"), [(1.0, 0.9), (0.5, 0.2), (0.1, 0.0)])
def test_cps_keeps_the_noise_level_and_the_signal(sigma: float, sigma_next: float, eta: float) -> None:
    only_noise = cps_step(torch.tensor([[sigma]]), torch.ones(1, 1), sigma, sigma_next, eta, noise=X)
    assert only_noise.std**2 + only_noise.mean.item() ** 2 == pytest.approx(sigma_next**2, abs=1e-6)
    only_signal = cps_step(torch.tensor([[1 - sigma]]), -torch.ones(1, 1), sigma, sigma_next, 1.0, noise=X)
    assert only_signal.mean.item() == pytest.approx(1 - sigma_next, abs=1e-6)


def test_cps_at_eta_0_is_the_euler_step() -> None:
    step = cps_step(XS, VS, 0.8, 0.6, eta=0.0, noise=ZS)
    assert step.std == 0
    torch.testing.assert_close(step.sample, euler_step(XS, VS, -0.2), rtol=0, atol=1e-6)


def test_bfloat16_is_computed_in_float32() -> None:
    step = sde_step(XS.bfloat16(), VS.bfloat16(), 0.8, 0.6, 0.7, 0.9, noise=ZS)
    assert step.sample.dtype == step.log_prob.dtype == torch.float32
    exact = sde_step(XS.bfloat16().double(), VS.bfloat16().double(), 0.8, 0.6, 0.7, 0.9, noise=ZS)
    assert torch.equal(step.log_prob, exact.log_prob)
    assert euler_step(XS.bfloat16(), VS, -0.2).dtype == torch.float32


@pytest.mark.parametrize("given", [{}, {"noise": X, "sample": X}])
def test_noise_or_sample_not_both_and_not_neither(given: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="either the noise"):
        sde_step(X, V, 0.8, 0.6, 0.7, 0.9, **given)
    with pytest.raises(ValueError, match="either the noise"):
        cps_step(X, V, 0.8, 0.6, 0.7, **given)


def test_the_density_is_gaussian() -> None:
    step = sde_step(X, V, 0.8, 0.6, 0.7, 0.9, noise=torch.full((1, 1), 1.3))
    normal = torch.distributions.Normal(step.mean, step.std)
    assert step.log_prob.item() == pytest.approx(normal.log_prob(step.sample).item(), abs=1e-6)
    assert math.isclose(step.std, step.drift_std * math.sqrt(0.2), rel_tol=1e-6)
