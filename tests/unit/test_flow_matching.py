"""Flow matching: noise levels, the straight path, and what both losses agree on."""

from __future__ import annotations

import pytest
import torch

from paretune.ops.flow_matching import (
    flow_matching_loss,
    logit_normal_sigma,
    noised,
    velocity_matching_loss,
)


def _sigma(count: int, **settings: float) -> torch.Tensor:
    return logit_normal_sigma(count, torch.Generator().manual_seed(0), **settings)


def test_the_logits_are_normal() -> None:
    logits = torch.logit(_sigma(4096, mean=0.5, std=2.0))
    assert float(logits.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(logits.std()) == pytest.approx(2.0, abs=0.02)
    assert (_sigma(100_000) > 0).all()
    assert (_sigma(100_000) < 1).all()


def test_levels_are_spread_evenly_and_shuffled() -> None:
    sigma = _sigma(8)
    inside = torch.special.ndtr(torch.logit(sigma)) * 8
    assert sorted(inside.floor().int().tolist()) == list(range(8))
    assert not torch.equal(sigma, sigma.sort().values)


def test_a_shift_moves_levels_towards_noise() -> None:
    plain, shifted = _sigma(16), _sigma(16, shift=3.0)
    assert torch.allclose(shifted, 3 * plain / (1 + 2 * plain))
    assert (shifted > plain).all()


def test_noised_runs_from_the_sample_to_the_noise() -> None:
    clean, noise = torch.full((3, 2, 2, 2), 4.0), torch.full((3, 2, 2, 2), -2.0)
    x = noised(clean, noise, torch.tensor([0.0, 0.5, 1.0]))
    assert x[:, 0, 0, 0].tolist() == [4.0, 1.0, -2.0]


def test_losses_by_hand() -> None:
    clean, noise = torch.tensor([[[[1.0]]]]), torch.tensor([[[[3.0]]]])
    assert float(flow_matching_loss(torch.tensor([[[[2.0]]]]), clean, noise)) == 0
    assert float(flow_matching_loss(torch.tensor([[[[5.0]]]]), clean, noise)) == 9
    assert float(velocity_matching_loss(torch.ones(2, 1, 1, 1), torch.zeros(2, 1, 1, 1))) == 1


def test_both_losses_lead_the_same_way_when_the_teacher_is_exact() -> None:
    """Clean samples are normal, so that the exact velocity E[eps - x0 | x] is known: linear in x."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn((200_000, 1, 1, 1), generator=generator)
    noise = torch.randn(clean.shape, generator=generator)
    sigma = torch.full((len(clean),), 0.3)
    x = noised(clean, noise, sigma)
    exact = x * (0.3 - 0.7) / (0.3**2 + 0.7**2)
    slope = torch.tensor(0.2, requires_grad=True)
    (flow,) = torch.autograd.grad(flow_matching_loss(slope * x, clean, noise), slope)
    (velocity,) = torch.autograd.grad(velocity_matching_loss(slope * x, exact), slope)
    assert float(flow) == pytest.approx(float(velocity), abs=0.02)
    assert abs(float(velocity)) > 0.5
