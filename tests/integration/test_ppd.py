"""PPD: one model for several users, told apart by a token in the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from paretune.planning.methods import build_plan
from paretune.recipes import load_config
from paretune.rewards.base import FunctionReward
from paretune.training.expert import ExpertTrainer
from paretune.training.mixture import Mixture, PromptSet
from paretune.types import Prompt
from tests.conftest import tiny_recipe
from tests.integration.test_preference_objectives import (
    PROMPTS,
    accumulated,
    begun,
    moved,
    objective_of,
    trainer,
)


def _red(images: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
    return images[:, 0].mean((1, 2))


def _pale(images: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
    return -_red(images, prompts)


def _joint(folder: Path, pipeline: Path, **options: Any) -> ExpertTrainer:
    """One model for two users who want the opposite."""
    objective = {"name": "ppd", "options": {"times": 4, "beta": 2000, **options}}
    train = {"prompts_per_epoch": 3, "group_size": 4}
    config = load_config(tiny_recipe(folder, pipeline, objective=objective, train=train))
    task = build_plan(config).methods[0].rounds[0].tasks[0]
    rewards = [FunctionReward(_red, "red"), FunctionReward(_pale, "pale")]
    mixture = Mixture([PromptSet(reward, PROMPTS) for reward in rewards], "all")
    return ExpertTrainer(config, task, folder, mixture, None, "cpu")


def test_every_list_has_the_token_and_the_order_of_its_user(tiny_sd3: Path, tmp_path: Path) -> None:
    of = _joint(tmp_path, tiny_sd3, drop=0.0)
    captions = of.objective.captions(of.objective.options, of.mixture)
    count = len(of.mixture.prompts)
    assert captions[count : count + 1] + captions[2 * count : 2 * count + 1] == \
        ["red: a red circle", "pale: a red circle"]  # fmt: skip
    begun(of)
    lists = objective_of(of).lists
    pixels = of.policy.decode(lists.clean)
    redness = lists.lists(_red(pixels, []))
    users = lists.lists(lists.caption)[:, 0] // count - 1
    assert set(users.tolist()) <= {0, 1}
    for user, (better, worse) in zip(users.tolist(), redness.tolist(), strict=True):
        assert (better > worse) == (user == 0)
    of.objective.own = objective_of(of).own.model_copy(update={"drop": 1.0})  # type: ignore[attr-defined]
    begun(of)
    assert (objective_of(of).lists.caption < count).all()


def test_without_tokens_it_is_diffusion_dpo(tiny_sd3: Path, tmp_path: Path) -> None:
    found, kept = [], None
    for name, options in (("diffusion_dpo", {}), ("ppd", {"drop": 1.0})):
        of = trainer(tmp_path / name, tiny_sd3, name, options=options)
        part = begun(of)
        moved(of)
        objective = objective_of(of)
        if kept is not None:  # the same noise: a user is drawn before it
            torch.testing.assert_close(objective.lists.clean, kept.lists.clean, atol=1e-4, rtol=1e-4)
            assert torch.equal(objective.lists.caption, kept.lists.caption)
            objective.levels = kept.levels
        kept = objective
        found.append(accumulated(of, part, 96)[0])
    assert (found[0] - found[1]).norm() < 1e-3 * found[0].norm()


@pytest.mark.parametrize(("drop", "learns"), [(0.0, True), (1.0, False)])
def test_users_who_want_the_opposite_are_learned_by_their_tokens_alone(
    tiny_sd3: Path, tmp_path: Path, drop: float, learns: bool
) -> None:
    """The same pair in both orders: without tokens they cancel, with them both are learned."""
    of = _joint(tmp_path, tiny_sd3, drop=0.0)
    begun(of)
    objective = objective_of(of)
    first = objective.lists.select(torch.tensor([0]))
    count = len(of.mixture.prompts)
    prompt = int(first.caption[0]) % count
    tokens = torch.tensor([1, 1, 2, 2]) * count * (drop == 0.0) + prompt
    clean = torch.cat([first.clean, first.clean.flip(0)])
    objective.lists = type(first)(2, clean, tokens, torch.tensor([[1.0], [0.0], [1.0], [0.0]]))
    objective.soft = objective.lists.score
    sigmas, noise = objective.levels.sigmas, objective.levels.noise
    assert noise is not None
    twice = torch.zeros(2, dtype=torch.long)  # both orders at the same noise and levels
    objective.levels = replace(objective.levels, sigmas=sigmas[:, twice], noise=noise[:, twice])
    objective.batch = replace(objective.batch, conditions=of.conditions.select(tokens))
    optimiser = torch.optim.Adam(list(of.state.parameters.values()), 0.02)
    rows = []
    for _ in range(25):
        optimiser.zero_grad()
        rows.append(objective.accumulate(torch.arange(4)))
        optimiser.step()
    if learns:
        assert rows[-1]["accuracy"] > 0.8
        assert rows[-1]["loss"] < 0.6
    else:
        assert rows[-1]["accuracy"] == 0.5
        assert min(row["loss"] for row in rows) > 0.6931
