"""Which way every preference system pushes: one small step down its loss raises what was preferred."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from paretune.models.flow import stochastic_step
from paretune.ops.preference_losses import clamped, shared_mean_gap
from paretune.training.preferences.presets import PRESETS
from tests.integration.test_preference_objectives import (
    ALONE,
    accumulated,
    begun,
    moved,
    objective_of,
    trainer,
)


@pytest.mark.parametrize("name", [name for name in ALONE if PRESETS[name].reference])
def test_a_small_step_raises_the_winner_against_the_loser(
    tiny_sd3: Path, tmp_path: Path, name: str
) -> None:
    """At the same samples, noise and levels, from the reference, where all implicit rewards are 0."""
    of = trainer(tmp_path, tiny_sd3, name, options={"threshold": 0.0} if name == "spo" else {})
    part = begun(of)
    down, before = accumulated(of, part, 96)
    assert before["margin"] == 0
    size = 0.01 / float(down.norm())
    for p in of.state.parameters.values():
        assert p.grad is not None
        p.data -= size * p.grad
    _, after = accumulated(of, part, 96)
    assert after["margin"] > 0
    if name != "linear_dpo":  # its weights have no gradient, and follow the gap
        assert after["loss"] < before["loss"]
    assert after["w_diff"] > after["l_diff"]


def test_a_fit_lowers_the_errors_that_it_weighs(tiny_sd3: Path, tmp_path: Path) -> None:
    of = trainer(tmp_path, tiny_sd3, "patch_dpo")
    part = begun(of)
    quality = objective_of(of).lists.quality
    assert quality is not None
    best, other = quality[0::2].mean().item(), quality[1::2].mean().item()
    assert best == pytest.approx(other, abs=0.05)  # not nearly all of it for the worse sample
    down, before = accumulated(of, part, 96)
    for p in of.state.parameters.values():
        assert p.grad is not None
        p.data -= 0.01 / float(down.norm()) * p.grad
    assert accumulated(of, part, 96)[1]["loss"] < before["loss"]


def test_candidates_of_one_state_have_the_loss_of_the_formula(tiny_sd3: Path, tmp_path: Path) -> None:
    """z = beta mean[(x_w - x_l)(mu - mu_ref)] / s^2, where no ratio is clamped (SPO)."""
    of = trainer(tmp_path, tiny_sd3, "spo", options={"threshold": 0.0, "beta": 1000.0})
    part = begun(of)
    moved(of)
    objective, (step,) = objective_of(of), objective_of(of).lists.step.unique().tolist()  # type: ignore[union-attr]
    at = objective.view(part, 0)
    with torch.no_grad():
        means = [
            stochastic_step(objective.schedule, step, objective.sampling, at.x,
                            objective.predicted(at, part, reference), sample=at.u)
            for reference in (False, True)
        ]  # fmt: skip
    log_ratio = means[0].log_prob - means[1].log_prob
    assert 0 < log_ratio.abs().max() < 0.09
    assert torch.equal(clamped(log_ratio, 0.1), log_ratio)
    gap = shared_mean_gap(at.u[0::2], at.u[1::2], means[0].mean[0::2], means[1].mean[0::2], means[0].std)
    loss = torch.nn.functional.softplus(-1000 * gap).mean().item()
    assert accumulated(of, part, 96)[1]["loss"] == pytest.approx(loss, rel=1e-3)
    assert gap.abs().max() > 1e-5


@pytest.mark.parametrize("name", ["diffusion_dpo", "tree_grpo"])
def test_the_scaled_loss_is_differentiated(tiny_sd3: Path, tmp_path: Path, name: str) -> None:
    """A float16 base trains on a scaled loss, whose gradient the optimiser divides again."""
    tree = {"train": {"group_size": 4}, "options": {"depth": 2}} if name == "tree_grpo" else {}
    of = trainer(tmp_path, tiny_sd3, name, **tree)
    part = begun(of)
    moved(of)
    for micro in (96, 1):
        plain, _ = accumulated(of, part, micro)
        of.objective.setting = replace(of.objective.setting, scaled=lambda loss: 8 * loss)
        scaled, _ = accumulated(of, part, micro)
        of.objective.setting = replace(of.objective.setting, scaled=lambda loss: loss)
        torch.testing.assert_close(scaled, 8 * plain, rtol=1e-4, atol=1e-6)
