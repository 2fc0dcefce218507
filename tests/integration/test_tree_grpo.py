"""Tree GRPO on a tiny pipeline: what the tree shares, what it costs, and that one branching is Flow-GRPO."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from paretune.planning.methods import build_plan
from paretune.recipes import load_config
from paretune.rewards.base import FunctionReward
from paretune.training.expert import ExpertTrainer
from paretune.training.mixture import Mixture, PromptSet
from paretune.training.objectives.tree_grpo import TreeGRPO, TreeGRPOOptions
from paretune.types import ParetuneError, Prompt
from tests.conftest import tiny_recipe

from .test_preference_objectives import accumulated, counting, values

PROMPTS = [Prompt("a red circle"), Prompt("two blue squares"), Prompt("a sign saying kite")]
PLAIN = {"growth": 0.0, "slope": 0.0, "pull": 0.0}


def _red(images: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
    return images[:, 0].mean((1, 2))


def _red_steps(images: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
    """The same in steps of 1/1024: samples that differ by rounding have equal rewards and advantages."""
    return (_red(images, prompts) * 1024).round() / 1024


def _trainer(
    folder: Path, pipeline: Path, leaves: int, steps: int = 4, name: str = "tree_grpo", shared: bool = False,
    reward: Any = _red, **options: Any,
) -> ExpertTrainer:  # fmt: skip
    config = load_config(tiny_recipe(
        folder, pipeline, objective={"name": name, "options": options, "shared_noise": shared},
        train={"group_size": leaves, "updates_per_epoch": 1}, model={"steps": steps},
    ))  # fmt: skip
    task = build_plan(config).methods[0].rounds[0].tasks[0]
    mixture = Mixture([PromptSet(FunctionReward(reward, "red"), PROMPTS)])
    return ExpertTrainer(config, task, folder, mixture, None, "cpu")


def _begun(of: ExpertTrainer) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    batch = of.objective.collect(of, generator).batch  # type: ignore[arg-type]
    assert batch is not None
    of.objective.begin_epoch(batch, generator)
    return torch.arange(len(batch.group))


def test_a_tree_trains(tiny_sd3: Path, tmp_path: Path) -> None:
    of = _trainer(tmp_path, tiny_sd3, 4)
    before = values(of)
    row = of.epoch()
    assert row["ratio"] == pytest.approx(1.0, abs=1e-5)
    assert row["kept_groups"] == 2
    assert row["pull"] > 0
    assert (values(of) - before).abs().max() > 0
    assert of.epoch()["grad_norm"] > 0
    assert torch.isfinite(values(of)).all()


def test_siblings_share_their_past(tiny_sd3: Path, tmp_path: Path) -> None:
    of = _trainer(tmp_path, tiny_sd3, 4, depth=2, first=1)
    _begun(of)
    states = of.objective.batch.trajectories.states
    assert states is not None
    assert states.shape[:2] == (8, 3)
    for level, nodes in enumerate((1, 2, 4)):
        for tree in states[:, level].view(2, 4, -1):
            assert len({tuple(row.tolist()) for row in tree}) == nodes


@pytest.mark.parametrize(("first", "drawn"), [(0, 111), (3, 66)])
def test_the_tree_costs_as_many_passes_as_is_said(
    tiny_sd3: Path, tmp_path: Path, first: int, drawn: int
) -> None:
    """Ten steps and 16 leaves, which would be 160 passes; and 15 distinct means in training, not 64."""
    of = _trainer(tmp_path, tiny_sd3, 16, steps=10, depth=4, first=first, pull=0.0)
    count = counting(of)
    part = _begun(of)
    assert count["looked"] == 2 * drawn
    count.clear()
    accumulated(of, part, 96)
    assert count["learned"] == 2 * 15
    count.clear()
    accumulated(of, part, 5)  # a tree that does not fit shares nothing
    assert count["learned"] == 2 * 64


def test_sharing_changes_no_gradient(tiny_sd3: Path, tmp_path: Path) -> None:
    of = _trainer(tmp_path, tiny_sd3, 4)
    part = _begun(of)
    whole, _ = accumulated(of, part, 96)
    parts, _ = accumulated(of, part, 1)
    assert (parts - whole).norm() < 1e-4 * whole.norm()


def test_one_branching_into_all_leaves_is_flow_grpo_with_shared_noise(tiny_sd3: Path, tmp_path: Path) -> None:
    options = {"depth": 1, "branches": 3, "clip_low": 1e-3, "clip_high": 1e-3, **PLAIN}
    tree = _trainer(tmp_path / "tree", tiny_sd3, 3, reward=_red_steps, **options)
    flow = _trainer(
        tmp_path / "flow", tiny_sd3, 3, name="flow_grpo", shared=True, reward=_red_steps,
        window=[0, 1], clip_range=1e-3,
    )
    rows = tree.epoch(), flow.epoch()
    for key in ("reward", "loss", "grad_norm"):
        assert rows[0][key] == pytest.approx(rows[1][key], rel=1e-4, abs=1e-7)
    torch.testing.assert_close(values(tree), values(flow), atol=1e-5, rtol=1e-4)


def test_noise_and_clip_by_depth_and_advantage() -> None:
    own = TreeGRPOOptions(depth=4, noise_level=0.5, growth=1.0, clip_low=1.0, clip_high=3.0, slope=2.0)
    assert [own.eta(k) for k in range(4)] == [0.5, 0.625, 0.75, 0.875]
    assert own.clip(torch.tensor([-50.0, 0.0, 50.0])).tolist() == pytest.approx([1.0, 2.0, 3.0])
    assert own.leaves == 16


def test_only_a_good_best_leaf_pulls(tiny_sd3: Path, tmp_path: Path) -> None:
    of = _trainer(tmp_path, tiny_sd3, 4)
    part = _begun(of)
    assert isinstance(of.objective, TreeGRPO)
    assert of.objective.pulls.any()
    with_pull, facts = accumulated(of, part, 96)
    of.objective.pulls = torch.zeros_like(of.objective.pulls)
    without, none = accumulated(of, part, 96)
    assert "pull" in facts
    assert "pull" not in none
    assert not torch.equal(with_pull, without)


@pytest.mark.parametrize(
    ("leaves", "options", "told"),
    [
        (5, {}, "train.group_size: 5 samples are not the 4 leaves of 2 branchings into 2"),
        (8, {"depth": 3, "first": 1}, "depth: the tree ends at step 4; it must end by model.steps - 1 = 3"),
        (4, {"clip_low": 1, "clip_high": 0.5}, "clip_low is more than clip_high"),
        (4, {"sampler": "cps", "noise_level": 0.9}, "noise_level x (1 + growth) is at most 1"),
    ],
)
def test_trees_that_cannot_be(
    tiny_sd3: Path, tmp_path: Path, leaves: int, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(ParetuneError) as caught:
        _trainer(tmp_path, tiny_sd3, leaves, **options)
    assert told in str(caught.value)
