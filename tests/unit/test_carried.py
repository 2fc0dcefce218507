"""`lora.init: carried`: later rounds begin along the directions that the earlier ones changed most."""

from __future__ import annotations

import pytest
import torch

from paretune.config import RunConfig
from paretune.models.carried import carry, turned
from paretune.ops.lowrank import LowRank
from paretune.planning.notices import notices
from paretune.recipes import parse_config


def test_rows_turn_to_the_main_input_directions_and_the_rest_stays_random() -> None:
    start = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])  # mean length (5 + 1 + 1) / 3
    delta = LowRank(torch.tensor([[0.0, 2.0], [9.0, 0.0]]), torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]))
    expected = torch.tensor([[0.0, 0.0, 7 / 3], [7 / 3, 0.0, 0.0], [1.0, 0.0, 0.0]])
    assert torch.allclose(turned(start, delta), expected, atol=1e-6)


def test_a_change_of_zero_or_of_less_rank_than_its_factors_gives_no_direction() -> None:
    start = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    empty = LowRank(torch.zeros(4, 0), torch.zeros(0, 3))
    zero = LowRank(torch.zeros(4, 2), torch.ones(2, 3))
    assert torch.equal(turned(start, empty), start)
    assert torch.equal(turned(start, zero), start)
    twice = LowRank(torch.ones(4, 2), torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]))
    rows = turned(start, twice)
    assert torch.allclose(rows[0], torch.tensor([0.0, 1.0, 0.0]) * start.norm(dim=1).mean(), atol=1e-6)
    assert torch.equal(rows[1], start[1])


@pytest.mark.parametrize("prefix", ["", "base_model.model."])
def test_an_adapter_of_a_convolution_and_one_of_peft_are_turned_too(prefix: str) -> None:
    a = torch.nn.Parameter(torch.ones(1, 2, 1, 2))
    b = torch.nn.Parameter(torch.zeros(3, 1, 1, 1))
    names = {f"{prefix}conv.lora_A.default.weight": a, f"{prefix}conv.lora_B.default.weight": b}
    carry(names, {"conv": LowRank(torch.ones(3, 1), torch.tensor([[0.0, 0.0, 5.0, 0.0]]))})
    assert torch.equal(a, torch.tensor([[[[0.0, 0.0]], [[2.0, 0.0]]]]).view_as(a))
    assert not b.any()


def test_modules_that_the_earlier_rounds_lack_stay_random() -> None:
    a = torch.nn.Parameter(torch.ones(1, 2))
    carry({"other.lora_A.policy.weight": a}, {"conv": LowRank(torch.ones(3, 1), torch.ones(1, 2))})
    assert torch.equal(a, torch.ones(1, 2))


def config_of(rounds: int, methods: tuple[str, ...] = ("mapreduce",)) -> RunConfig:
    keys = {"rounds": rounds, "methods": list(methods), "lora": {"init": "carried"}}
    reward = {"reward": "pictures.ocr", "prompts": "pictures/ocr-train", "eval_prompts": "pictures/ocr-test"}
    return parse_config({"rewards": {"ocr": reward}, **keys}, "x")


def test_a_recipe_without_a_second_round_is_told() -> None:
    line = "lora.init: carried changes nothing without a second round of mapreduce"
    assert line not in notices(config_of(rounds=2))
    assert line in notices(config_of(rounds=1))
    assert line in notices(config_of(rounds=2, methods=("rewarded_soup",)))
