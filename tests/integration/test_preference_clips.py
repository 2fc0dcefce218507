"""Preference objectives of clips, on the tiny HunyuanVideo: frames are lists of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from paretune.planning.methods import build_plan
from paretune.recipes import load_config
from paretune.rewards.base import FunctionReward
from paretune.samples.files import write_clip
from paretune.training.expert import ExpertTrainer
from paretune.training.mixture import Mixture, PromptSet
from paretune.training.objectives.preference import PreferenceObjective
from paretune.training.trainers import check_experts, check_objective
from paretune.types import ParetuneError, Prompt
from tests.conftest import tiny_recipe
from tests.integration.test_preference_objectives import accumulated, counting
from tests.preference_files import write_records

PROMPTS = [Prompt("a red circle moves left"), Prompt("a blue cross moves up"), Prompt("a star moves down")]
MODEL = {"height": 16, "width": 16, "options": {"frames": 9}}


def _late(clips: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
    """How much redder the last frame is than the first."""
    return clips[:, -1, 0].mean((1, 2)) - clips[:, 0, 0].mean((1, 2))


def _trainer(folder: Path, pipeline: Path, name: str, pairs: Path | None = None) -> ExpertTrainer:
    objective = {"name": name, "options": {"segment": 3} if name == "dense_dpo" else {}}
    train = {"updates_per_epoch": 1}
    config = load_config(tiny_recipe(folder, pipeline, objective=objective, model=MODEL, train=train))
    check_objective(config)
    task = build_plan(config).methods[0].rounds[0].tasks[0]
    given = None if pairs is None else str(pairs)
    mixture = Mixture([PromptSet(FunctionReward(_late, "late"), PROMPTS, pairs=given)])
    return ExpertTrainer(config, task, folder, mixture, None, "cpu")


def test_dense_dpo_compares_the_frames_of_guided_pairs(tiny_hunyuan: Path, tmp_path: Path) -> None:
    of = _trainer(tmp_path, tiny_hunyuan, "dense_dpo")
    row = of.epoch()
    assert row["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert (row["w_diff"], row["l_diff"], row["kl"]) == (0.0, 0.0, 0.0)
    objective = of.objective
    assert isinstance(objective, PreferenceObjective)
    assert objective.lists.score.shape == (4, 3)  # two pairs of three latent frames
    first, second = objective.lists.score.view(2, 2, 3).transpose(0, 1)
    assert not torch.equal(first, second)
    assert of.epoch()["kl"] > 0
    count = counting(of)
    accumulated(of, torch.arange(4), 96)
    assert 3 * count["learned"] + count["looked"] == 8 * 2 * objective.slots  # 8 passes a pair and level


def test_frames_of_one_label_and_equal_gap_are_the_whole_clip(tiny_hunyuan: Path, tmp_path: Path) -> None:
    of = _trainer(tmp_path, tiny_hunyuan, "dense_dpo")
    of.epoch()
    objective = of.objective
    assert isinstance(objective, PreferenceObjective)
    label = torch.tensor([[1.0], [0.0]]).repeat(2, 1)
    e = torch.tensor([[0.30], [0.31]]).repeat(2, 1)
    reference = torch.full_like(e, 0.305)
    losses = []
    for cells in (1, 3):
        objective.lists = replace(objective.lists, score=label.expand(-1, cells))
        objective.soft = objective.lists.score
        index = torch.arange(4)
        losses.append(objective.compared(e.expand(-1, cells), reference.expand(-1, cells), index))
    assert losses[0].item() == pytest.approx(losses[1].item())
    assert losses[0].item() == pytest.approx(math.log1p(math.exp(-250 * 0.01)), abs=1e-5)


def test_a_tied_frame_is_left_out_and_a_list_without_order_too(tiny_hunyuan: Path, tmp_path: Path) -> None:
    of = _trainer(tmp_path, tiny_hunyuan, "dense_dpo")
    of.epoch()
    objective = of.objective
    assert isinstance(objective, PreferenceObjective)
    objective.own = objective.own.model_copy(update={"beta": 100.0})
    gap = torch.tensor([[0.02, 0.0], [0.0, 0.0]])  # implicit rewards of the two frames
    for score, loss in (
        ([[1.0, 1.0], [0.0, 0.0]], 0.503204), ([[1.0, 0.0], [0.0, 0.0]], 0.313262),
        ([[0.0, 0.0], [0.0, 0.0]], 0.0),
    ):  # fmt: skip
        objective.lists = replace(
            objective.lists, clean=objective.lists.clean[:2], caption=objective.lists.caption[:2],
            score=torch.tensor(score),
        )  # fmt: skip
        objective.soft = objective.lists.score
        found = objective.compared(-gap, torch.zeros(2, 2), torch.arange(2))
        assert found.item() == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize("name", ["diffusion_dpo", "smpo", "spo"])
def test_other_presets_train_on_clips(tiny_hunyuan: Path, tmp_path: Path, name: str) -> None:
    of = _trainer(tmp_path, tiny_hunyuan, name)
    rows = [of.epoch(), of.epoch()]
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert rows[0]["grad_norm"] > 0


def test_pairs_of_clips_on_disk(tiny_hunyuan: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    generator = torch.Generator().manual_seed(0)
    for i in range(4):
        write_clip(torch.rand(9, 3, 16, 16, generator=generator).round(), tmp_path / f"c{i}.mp4")
    path = write_records(tmp_path / "pairs.jsonl", [
        {"prompt": p.text, "chosen": f"c{2 * i}.mp4", "rejected": f"c{2 * i + 1}.mp4"}
        for i, p in enumerate(PROMPTS[:2])
    ])  # fmt: skip
    of = _trainer(tmp_path / "run", tiny_hunyuan, "diffusion_dpo", path)
    config = of.config.model_copy(update={
        "rewards": {"red": of.config.rewards["red"].model_copy(update={"pairs": str(path)})}})  # fmt: skip
    check_experts(config)
    objective = of.objective
    assert of.epoch()["kept_groups"] == 2
    assert isinstance(objective, PreferenceObjective)
    decoded = of.policy.decode(objective.lists.clean[:1])
    assert decoded.shape == (1, 9, 3, 16, 16)
    write_clip(torch.zeros(5, 3, 16, 16), tmp_path / "c3.mp4")
    with pytest.raises(ParetuneError, match=r":2: c3.mp4 is a clip of 5 frames, and the model draws a"):
        check_experts(config)
    write_clip(torch.zeros(9, 3, 24, 24), tmp_path / "c3.mp4")
    with pytest.raises(ParetuneError, match=r":2: c3.mp4 has 120x120 pixels, and the model draws 16x16"):
        check_experts(config)
