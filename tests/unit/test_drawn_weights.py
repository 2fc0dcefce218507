"""Weights that are drawn for every prompt: their law, the advantages that they sum, plan and mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from paretune.ops.advantages import group_advantages
from paretune.ops.drawn_weights import draw_weights, weighted_advantages
from paretune.ops.policy_losses import nft_loss
from paretune.planning.budget import counted
from paretune.planning.methods import build_plan
from paretune.planning.words import described
from paretune.recipes import parse_config
from paretune.sampling.source import BASE
from paretune.stages.menu import menus_of
from paretune.stages.subjects import subjects_of
from paretune.training.weighted import check_weighted
from paretune.types import ParetuneError

from .test_leaning import config


def drawn(rewards: int, count: int = 4000, seed: int = 0) -> torch.Tensor:
    applies = torch.ones(rewards, count, dtype=torch.bool)
    return draw_weights(applies, torch.Generator().manual_seed(seed))


def test_two_rewards_are_weighed_evenly_over_all_trade_offs() -> None:
    weights = drawn(2)
    torch.testing.assert_close(weights.sum(1), torch.ones(4000))
    # Dirichlet(1, 1) is uniform: mean 1/2, variance 1/12, a tenth of the draws in each tenth.
    assert float(weights[:, 0].mean()) == pytest.approx(0.5, abs=0.015)
    assert float(weights[:, 0].var()) == pytest.approx(1 / 12, abs=0.005)
    assert weights[:, 0].histc(10, 0, 1).div(4000).allclose(torch.tensor(0.1), atol=0.02)


def test_of_three_half_of_the_draws_are_one_reward_and_a_third_are_two() -> None:
    weights = drawn(3)
    torch.testing.assert_close(weights.sum(1), torch.ones(4000))
    counting = (weights > 0).sum(1)
    shares = [float((counting == n).float().mean()) for n in (1, 2, 3)]
    assert shares == pytest.approx([0.5, 0.35, 0.15], abs=0.025)
    ones = weights[counting == 1].mean(0)
    assert ones.tolist() == pytest.approx([1 / 3] * 3, abs=0.03)  # each as often
    pairs = weights[counting == 2].sort(dim=1).values[:, 1]
    assert float(pairs.mean()) == pytest.approx(0.25, abs=0.02)  # the smaller of two uniform parts
    inside = weights[counting == 3]
    assert inside.mean(0).tolist() == pytest.approx([1 / 3] * 3, abs=0.03)
    assert float(inside.var()) == pytest.approx(1 / 18, abs=0.008)  # of Dirichlet(1, 1, 1)


def test_the_draws_are_these() -> None:
    """They are part of what determines a run."""
    found = drawn(3, 4).mul(1e4).round().int().tolist()
    assert found == [[10000, 0, 0], [0, 10000, 0], [0, 10000, 0], [0, 8912, 1088]]


def test_no_draw_leaves_a_prompt_without_a_reward_that_applies() -> None:
    applies = torch.tensor([[True], [False], [False], [False]]).expand(-1, 500)
    weights = draw_weights(applies, torch.Generator().manual_seed(1))
    assert (weights[:, 0] > 0).all()
    assert (weights[:, 1:] > 0).any()  # others may count beside it


SCORES = torch.tensor([
    [[0.0, 1.0, 2.0, 5.0], [1.0, 1.0, 3.0, 0.0]],
    [[4.0, 0.0, 1.0, 1.0], [9.0, 2.0, 0.0, 3.0]],
])  # fmt: skip
BOTH = torch.ones(2, 2, dtype=torch.bool)


def test_at_one_reward_the_advantages_are_those_of_that_reward_to_the_bit() -> None:
    for reward in (0, 1):
        alone = torch.eye(2)[[reward, reward]]
        assert torch.equal(weighted_advantages(SCORES, alone, BOTH), group_advantages(SCORES[reward]))


def test_each_reward_is_normalised_before_it_is_summed() -> None:
    weights = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    first, second = map(group_advantages, SCORES)
    found = weighted_advantages(SCORES, weights, BOTH)
    torch.testing.assert_close(found[0], 0.25 * first[0] + 0.75 * second[0])
    assert torch.equal(found[1], first[1])
    apart = weighted_advantages(SCORES, weights, torch.tensor([[True, True], [False, True]]))
    assert torch.equal(apart[0], 0.25 * first[0])  # the second does not apply to the first prompt


def loss(advantages: torch.Tensor) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    v, old, x, clean = (torch.randn((8, 3, 2, 2), generator=g) for _ in range(4))
    sigma = torch.linspace(0.1, 0.9, 8)
    return nft_loss(v, old, x, clean, sigma, advantages.flatten(), 0.5, 5.0)


def test_the_loss_is_the_sum_of_each_rewards_loss() -> None:
    each = [loss(group_advantages(scores)) for scores in SCORES]
    half = torch.tensor([[0.3, 0.7]] * 2)
    torch.testing.assert_close(loss(weighted_advantages(SCORES, half, BOTH)), 0.3 * each[0] + 0.7 * each[1])
    for reward in (0, 1):
        alone = torch.eye(2)[[reward, reward]]
        assert torch.equal(loss(weighted_advantages(SCORES, alone, BOTH)), each[reward])


def test_the_plan_has_the_budget_of_morl_dr() -> None:
    made = config(methods=["morl_dr", "conditioned"], evaluate={"lattice": 2})
    joint, given = counted(made, build_plan(made), {}).methods
    task = given.rounds[0].tasks[0]
    assert (task.scoring, task.width, task.folder) == ("drawn", 2, "conditioned/experts/joint")
    assert (given.samples, given.updates, given.scores) == (joint.samples, joint.updates, joint.scores)
    assert (given.weighted, joint.weighted) == (task.folder, "")
    assert any("given the weights" in line for line in described(made))


def test_its_front_is_one_model_at_every_preference() -> None:
    made = config(methods=["morl_dr", "conditioned"], evaluate={"lattice": 2})
    plan = build_plan(made)
    (menu,) = menus_of(plan)
    assert menu.at((0.2, 0.8)).weights == (0.2, 0.8)
    assert menu.at((0.2, 0.8)).adapters == menu.at((1.0, 0.0)).adapters == ("conditioned/merged",)
    found = {s.name: s for s in subjects_of(made, plan) if s.weighted}
    assert {name: s.preference for name, s in found.items()} == {
        "conditioned": (0.5, 0.5), "conditioned~1-0": (1.0, 0.0), "conditioned~0-1": (0.0, 1.0),
    }  # fmt: skip
    assert {s.weighted for s in found.values()} == {"conditioned/experts/joint"}
    assert BASE.weights == ()
    plain = next(s for s in subjects_of(made, plan) if s.name == "morl_dr")
    assert "weighted" not in plain.told()  # so measurements of earlier versions keep their digest


ONE = {"reward": "pictures.ocr", "prompts": "pictures/ocr-train", "eval_prompts": "pictures/ocr-test"}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "one reward": ({"rewards": {"ocr": ONE}}, "with one reward there is nothing to weigh"),
    "language": ({"model": {"path": "assistant"}}, "assistant has no time embedding"),
    "all weights": ({"lora": None}, "it trains an adapter; give the keys of lora"),
    "given pairs": ({"objective": {"name": "diffusion_dpo"}}, "objective diffusion_dpo does not draw"),
    "trees": (
        {"objective": {"name": "tree_grpo"}, "train": {"group_size": 4}}, "objective tree_grpo does not draw"
    ),
}


@pytest.mark.parametrize(("changes", "told"), REFUSED.values(), ids=REFUSED)
def test_what_it_cannot_train_is_told_before_training(changes: dict[str, Any], told: str) -> None:
    own = config().model_dump(mode="json") | {"methods": ["morl_dr", "conditioned"]}
    with pytest.raises(ParetuneError, match=f"^methods: conditioned: {told}"):
        check_weighted(parse_config({**own, **changes}, "x"))
    check_weighted(parse_config({**own, **changes, "methods": ["morl_dr"]}, "x"))
    check_weighted(parse_config(own, "x"))


def test_a_folder_without_an_embedding_is_one_line(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from paretune.models.weighting import FILE, embedding_hash, load_embedding

    with pytest.raises(ParetuneError, match=f"holds no {FILE}"):
        embedding_hash(tmp_path)
    save_file({"first.weight": torch.ones(3, 2)}, tmp_path / FILE)
    with pytest.raises(ParetuneError, match="holds no embedding of the weights of rewards"):
        load_embedding(tmp_path)
