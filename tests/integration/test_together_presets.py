"""Objectives on preferences whose updates compare all samples, or several users', by several processes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import torch

from paretune.planning.methods import build_plan
from paretune.recipes import load_config
from paretune.rewards.base import FunctionReward
from paretune.training.expert import ExpertTrainer
from paretune.training.mixture import Mixture, PromptSet
from paretune.training.together.crew import Crew
from paretune.types import Prompt
from tests.conftest import tiny_recipe
from tests.together import assert_only_rounded, distance, in_crew, trained

PROMPTS = [Prompt("a red circle"), Prompt("two blue squares"), Prompt("a sign saying kite")]
TRAIN = {"epochs": 2, "prompts_per_epoch": 3, "group_size": 4, "updates_per_epoch": 2, "micro_batch": 8}


def _red(images: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
    return images[:, 0].mean((1, 2))


def _pale(images: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
    return -_red(images, prompts)


def _train(out: Path, pipeline: Path, name: str, users: int, crew: Crew) -> dict[str, torch.Tensor]:
    rewards = [FunctionReward(_red, "red"), FunctionReward(_pale, "pale")][:users]
    folder = out / f"of-{crew.size}"
    own = tiny_recipe(folder / str(crew.rank), pipeline, objective={"name": name}, train=TRAIN)
    config = load_config(own)
    task = build_plan(config).methods[0].rounds[0].tasks[0]
    mixture = Mixture([PromptSet(reward, PROMPTS) for reward in rewards], "all" if users > 1 else "own")
    return trained(ExpertTrainer(config, task, folder, mixture, None, "cpu", crew))


@pytest.mark.parametrize(("name", "users"), [("tkto", 1), ("ppd", 2)])
def test_two_processes_change_rounding_alone(tiny_sd3: Path, tmp_path: Path, name: str, users: int) -> None:
    """The baseline of `tkto` is that of an update; `ppd` draws the user of each list."""
    train = partial(_train, tmp_path, tiny_sd3, name, users)
    (alone,) = in_crew(1, train, tmp_path)
    assert max(float(p.abs().max()) for n, p in alone.items() if "lora_B" in n) > 1e-3
    together = in_crew(2, train, tmp_path / "results")
    assert distance(*together) == 0.0
    assert_only_rounded(alone, together[0])
