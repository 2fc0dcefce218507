"""Accelerated preference optimisation is a recipe on `nesterov`, and COFS-DPO one on `search`."""

from __future__ import annotations

import pytest
import torch

from paretune.config import ReduceConfig
from paretune.ops.lowrank import LowRank
from paretune.ops.reducers import nesterov, outer_momentum

ONE = LowRank(torch.ones(1, 1), torch.ones(1, 1))


def rounds(momentum: float) -> list[float]:
    """The model after each of three rounds whose experts all change it by 1."""
    state, model, found = None, 0.0, []
    for _ in range(3):
        change = nesterov([ONE], [1.0], state=state, momentum=momentum, outer_lr=1.0)
        state = outer_momentum([ONE], [1.0], state, momentum)
        model += float(change.dense())
        found.append(model)
    return found


def test_extrapolated_rounds() -> None:
    """The trained round plus 0.3 times its difference to the trained round before."""
    assert rounds(0.3) == pytest.approx([1.3, 2.69, 4.107], abs=1e-5)
    assert rounds(0.0) == pytest.approx([1.0, 2.0, 3.0])  # iterative DPO


def test_the_recipes_of_the_page_are_read() -> None:
    rule = ReduceConfig.model_validate({"method": "nesterov", "options": {"momentum": 0.3, "outer_lr": 1}})
    assert rule.options == {"momentum": 0.3, "outer_lr": 1.0}
    assert ReduceConfig.model_validate({"method": "search"}).method == "search"


def test_on_tabular_softmax_it_is_a_power_of_the_policies() -> None:
    """pi is proportional to pi'_(t+1) (pi'_(t+1) / pi'_t)^a, with pi' the trained rounds."""
    generator = torch.Generator().manual_seed(0)
    changes = torch.randn(3, 1, 5, generator=generator)
    state, logits, trained_before = None, torch.zeros(1, 5), torch.zeros(1, 5)
    for change in changes:
        expert = LowRank(torch.ones(1, 1), change)
        trained = logits + change
        step = nesterov([expert], [1.0], state=state, momentum=0.3, outer_lr=1.0)
        state = outer_momentum([expert], [1.0], state, 0.3)
        wanted = trained.softmax(1) * (trained.softmax(1) / trained_before.softmax(1)) ** 0.3
        logits, trained_before = logits + step.dense(), trained
        torch.testing.assert_close(logits.softmax(1), wanted / wanted.sum())
