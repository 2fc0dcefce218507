"""Preference objectives on a tiny pipeline: what each preset costs and reduces to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from paretune.planning.methods import build_plan
from paretune.recipes import load_config
from paretune.rewards.base import FunctionReward
from paretune.training.expert import ExpertTrainer, Stopped
from paretune.training.mixture import Mixture, PromptSet
from paretune.training.objectives.preference import PreferenceObjective
from paretune.training.preferences.presets import PRESETS
from paretune.types import ParetuneError, Prompt
from tests.conftest import tiny_recipe

PROMPTS = [Prompt("a red circle"), Prompt("two blue squares"), Prompt("a sign saying kite")]
# What a loss is where the model is the reference, of pairs or of lists of three samples; None: it depends.
LOG2 = math.log(2)
AT_REFERENCE: dict[str, float | None] = {
    "diffusion_dpo": LOG2, "rank_dpo": None, "smpo": LOG2, "inversion_dpo": LOG2, "spo": LOG2, "d3po": LOG2,
    "ppd": LOG2,
    "patch_dpo": None, "dro": 0.001, "dcpo": LOG2, "tpo": LOG2, "tkto": 0.5, "madpo": None, "adpo": None,
    "pnapo": LOG2, "dgpo": LOG2, "lpo_list": math.log(6), "linear_dpo": None, "diffusion_kto": 0.5,
    "mapo": None,
}  # fmt: skip
ALONE = sorted(AT_REFERENCE)  # those that need no file and no clips


def _red(images: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
    return images[:, 0].mean((1, 2))


def trainer(folder: Path, pipeline: Path, name: str, reward: object = _red, **changes: Any) -> ExpertTrainer:
    options = changes.pop("options", {})
    train = {"updates_per_epoch": 1, **changes.pop("train", {})}
    objective = {"name": name, "options": options}
    config = load_config(tiny_recipe(folder, pipeline, objective=objective, train=train, **changes))
    task = build_plan(config).methods[0].rounds[0].tasks[0]
    own = FunctionReward(reward, "red")  # type: ignore[arg-type]
    mixture = Mixture([PromptSet(own, PROMPTS, kl=config.objective.kl)])
    return ExpertTrainer(config, task, folder, mixture, None, "cpu")


def objective_of(of: ExpertTrainer) -> PreferenceObjective:
    assert isinstance(of.objective, PreferenceObjective)
    return of.objective


def values(of: ExpertTrainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in of.state.parameters.values()])


def gradient(of: ExpertTrainer) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in of.state.parameters.values() if p.grad is not None])


def begun(of: ExpertTrainer) -> torch.Tensor:
    """Collect the samples of an epoch and draw its noise; returns the indices of all samples."""
    generator = torch.Generator().manual_seed(7)
    batch = of.objective.collect(of, generator).batch  # type: ignore[arg-type]
    assert batch is not None
    of.objective.begin_epoch(batch, generator)
    return torch.arange(len(batch.group))


def moved(of: ExpertTrainer, size: float = 0.05) -> None:
    """Move the adapter away from the reference."""
    generator = torch.Generator().manual_seed(11)
    for p in of.state.parameters.values():
        p.data += size * torch.randn(p.shape, generator=generator)


def accumulated(of: ExpertTrainer, part: torch.Tensor, micro: int) -> tuple[torch.Tensor, dict[str, float]]:
    """The gradient of an update, and its facts, with micro-batches of a size."""
    setting = of.objective.setting
    of.objective.setting = replace(setting, train=setting.train.model_copy(update={"micro_batch": micro}))
    of.state.optimiser.zero_grad()
    sums = of.objective.accumulate(part)
    of.objective.setting = setting
    return gradient(of), sums


@pytest.mark.parametrize("name", ALONE)
def test_a_preset_begins_at_the_reference_and_trains(tiny_sd3: Path, tmp_path: Path, name: str) -> None:
    of = trainer(tmp_path, tiny_sd3, name, options={"threshold": 0.0} if name == "spo" else {})
    before = values(of)
    first = of.epoch()
    expected = AT_REFERENCE[name]
    if expected is not None:
        assert first["loss"] == pytest.approx(expected, abs=1e-6)
    if PRESETS[name].reference:  # exactly: the same kernels see the same numbers
        assert (first["w_diff"], first["l_diff"], first["kl"], first["accuracy"]) == (0.0, 0.0, 0.0, 0.5)
    second = of.epoch()
    assert first["grad_norm"] > 0
    assert (values(of) - before).abs().max() > 0
    assert torch.isfinite(values(of)).all()
    if PRESETS[name].reference:
        assert second["kl"] > 0


# What a pair, or a list of three, or a step costs in forward passes of a sample; a backward pass is two.
COSTS: dict[str, tuple[float, dict[str, Any]]] = {
    "diffusion_dpo": (8, {}), "pnapo": (8, {}), "linear_dpo": (8, {}), "madpo": (8, {}), "dcpo": (8, {}),
    "tpo": (8, {}), "tkto": (8, {}), "ppd": (8, {}),
    "rank_dpo": (12, {}), "adpo": (12, {}), "lpo_list": (12, {}), "dgpo": (12, {}),
    "patch_dpo": (6, {}), "mapo": (6, {}), "diffusion_kto": (12, {}), "d3po": (8, {}), "dro": (8, {}),
    "smpo": (8, {}), "spo": (4, {"threshold": 0.0}),
}  # fmt: skip


def counting(of: ExpertTrainer) -> Counter[str]:
    """Count the samples that pass through the model: "learned" with a gradient, "looked" without."""
    count: Counter[str] = Counter()
    plain = of.policy.velocity

    def velocity(x: torch.Tensor, *rest: Any) -> torch.Tensor:
        count["learned" if torch.is_grad_enabled() else "looked"] += len(x)
        return plain(x, *rest)

    of.policy.velocity = velocity  # type: ignore[method-assign]
    return count


@pytest.mark.parametrize("name", COSTS)
def test_training_costs_as_many_passes_as_is_said(tiny_sd3: Path, tmp_path: Path, name: str) -> None:
    cost, options = COSTS[name]
    of = trainer(tmp_path, tiny_sd3, name, options=options)
    part = begun(of)
    count = counting(of)
    accumulated(of, part, 96)
    objective = objective_of(of)
    lists = len(objective.lists) * objective.slots
    assert (3 * count["learned"] + count["looked"]) / lists == cost


def test_lists_by_coefficients_cost_five_passes_a_sample(tiny_sd3: Path, tmp_path: Path) -> None:
    of = trainer(tmp_path, tiny_sd3, "rank_dpo")
    part = begun(of)
    count = counting(of)
    accumulated(of, part, 2)
    assert 3 * count["learned"] + count["looked"] == 5 * len(part) * objective_of(of).slots


def test_an_inversion_goes_as_far_as_its_level(tiny_sd3: Path, tmp_path: Path) -> None:
    """Every level of a grid of four once: the mean is 2.5 steps, with renoising two passes each."""
    train = {"prompts_per_epoch": 2, "group_size": 3}
    of = trainer(tmp_path, tiny_sd3, "smpo", train=train, options={"grid": 4, "times": 2})
    generator = torch.Generator().manual_seed(1)
    batch = of.objective.collect(of, generator).batch  # type: ignore[arg-type]
    assert batch is not None
    count = counting(of)
    of.objective.begin_epoch(batch, generator)
    levels = objective_of(of).levels.sigmas  # [2 slots, 2 lists]
    grid = torch.tensor(sorted(of.policy.schedule(4).sigmas))
    farthest = torch.searchsorted(grid, levels.amax(0) - 1e-4).tolist()
    assert sorted(levels.flatten().tolist()) == pytest.approx(grid[1:].tolist())
    assert count["looked"] == 2 * 2 * sum(farthest)
    assert count["learned"] == 0


def test_candidates_cost_one_pass_each(tiny_sd3: Path, tmp_path: Path) -> None:
    of = trainer(tmp_path, tiny_sd3, "spo", options={"candidates": 3})
    count = counting(of)
    of.objective.collect(of, torch.Generator().manual_seed(1))  # type: ignore[arg-type]
    # Two prompts: at the first step, which has no candidates, at the second, and 3 candidates of that.
    assert count["looked"] == 2 + 2 + 2 * 3


# One preset of each comparison, and of each place to look at samples.
KINDS = ["diffusion_dpo", "rank_dpo", "smpo", "spo", "d3po", "patch_dpo", "dro", "tkto", "adpo", "dgpo",
         "lpo_list", "linear_dpo", "mapo"]  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_a_list_that_does_not_fit_has_the_same_gradient(tiny_sd3: Path, tmp_path: Path, name: str) -> None:
    of = trainer(tmp_path, tiny_sd3, name, options={"threshold": 0.0} if name == "spo" else {})
    part = begun(of)
    moved(of)
    whole, facts = accumulated(of, part, 96)
    parts, same = accumulated(of, part, 1)
    assert whole.norm() > 0
    # Errors near 2 are rounded to 2e-7, times a beta of hundreds. Without a model, `ops` is held to 1e-6.
    assert (parts - whole).norm() < 1e-3 * whole.norm()
    assert same == pytest.approx(facts, rel=1e-3, abs=1e-4)


def test_the_anchor_pulls_alike_in_both_ways(tiny_sd3: Path, tmp_path: Path) -> None:
    of = trainer(tmp_path, tiny_sd3, "diffusion_dpo")
    part = begun(of)
    moved(of)
    plain, facts = accumulated(of, part, 96)
    of.objective.setting = replace(of.objective.setting, kl=300.0)
    pulled, same = accumulated(of, part, 96)
    parts, _ = accumulated(of, part, 1)
    assert (pulled - plain).norm() > 0.1 * plain.norm()
    assert (parts - pulled).norm() < 1e-3 * pulled.norm()
    assert same["kl"] == pytest.approx(facts["kl"]) != 0


# ---------------------------------------------------------------- identities


def test_equal_samples_have_no_gradient(tiny_sd3: Path, tmp_path: Path) -> None:
    of = trainer(tmp_path, tiny_sd3, "diffusion_dpo")
    part = begun(of)
    moved(of)
    objective = objective_of(of)
    clean = objective.lists.clean.clone()
    clean[1::2] = clean[0::2]
    objective.lists = replace(objective.lists, clean=clean)
    found, facts = accumulated(of, part, 96)
    assert found.abs().max() < 1e-5
    assert facts["loss"] == pytest.approx(LOG2, abs=1e-5)


def test_a_caption_a_side_with_equal_captions_is_diffusion_dpo(tiny_sd3: Path, tmp_path: Path) -> None:
    found = []
    for name in ("diffusion_dpo", "dcpo"):
        of = trainer(tmp_path / name, tiny_sd3, name)
        part = begun(of)
        moved(of)
        objective = objective_of(of)
        if name == "dcpo":
            assert (objective.lists.caption[1::2] == objective.lists.caption[0::2] + len(PROMPTS)).all()
            conditions = of.conditions.select(objective.lists.caption[0::2].repeat_interleave(2))
            objective.batch = replace(objective.batch, conditions=conditions)
        found.append(accumulated(of, part, 96)[0])
    assert (found[0] - found[1]).norm() < 1e-3 * found[0].norm()  # prompts are embedded beside others


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("madpo", {"at": 0.001, "slope": 1000.0, "least": 0.999, "most": 1.001}),  # all weights are 1
        ("smpo", {"target": "fresh", "gamma": 1e6}),
    ],
)
def test_neutral_options_give_diffusion_dpo(
    tiny_sd3: Path, tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    found = []
    for own in ("diffusion_dpo", name):
        of = trainer(tmp_path / own, tiny_sd3, own, options=options if own == name else {})
        part = begun(of)
        moved(of)
        if name == "smpo":  # labels of 1 and a factor of 1
            objective_of(of).soft = 1e4 * objective_of(of).lists.score
            objective_of(of).own = objective_of(of).own.model_copy(update={"gamma": 1.0})
        found.append(accumulated(of, part, 96)[0])
    assert (found[0] - found[1]).norm() < 2e-3 * found[0].norm()


def test_the_losers_gradient_is_scaled(tiny_sd3: Path, tmp_path: Path) -> None:
    """Of the errors' gradients, that of the worse sample alone: at 0 it is the fit of the better one."""
    gradients = {}
    for loser in (1.0, 0.5, 0.0):
        of = trainer(tmp_path / str(loser), tiny_sd3, "diffusion_dpo", options={"loser": loser})
        part = begun(of)
        moved(of)
        gradients[loser] = accumulated(of, part, 96)[0]
    middle = (gradients[1.0] + gradients[0.0]) / 2
    assert (gradients[0.5] - middle).norm() < 1e-4 * middle.norm()
    assert (gradients[1.0] - gradients[0.0]).norm() > 0.1 * middle.norm()


def test_kept_noise_is_what_the_sample_came_from(tiny_sd3: Path, tmp_path: Path) -> None:
    of = trainer(tmp_path, tiny_sd3, "pnapo")
    plain = of.policy.velocity
    of.policy.velocity = lambda x, *rest: torch.full_like(x, 0.3) + 0 * plain(x, *rest)  # type: ignore[method-assign]
    part = begun(of)
    objective = objective_of(of)
    at = objective.view(part, 0)
    velocity = objective.predicted(at, part, reference=False)
    assert objective.errors(velocity, at, part).abs().max() < 1e-10


# ---------------------------------------------------------------- sets that last, and going on


def test_a_set_that_is_used_again_survives_a_stop(tiny_sd3: Path, tmp_path: Path) -> None:
    """Three epochs on one set; a stop after the second, and the file is needed."""
    train = {"epochs": 3, "checkpoint_every": 1}
    whole = trainer(tmp_path / "whole", tiny_sd3, "diffusion_dpo", train=train, options={"reuse": 3})
    whole.run(lambda event: None, lambda: False)
    folder = tmp_path / "parts"
    first = trainer(folder, tiny_sd3, "diffusion_dpo", train=train, options={"reuse": 3})
    seen: list[object] = []
    with pytest.raises(Stopped):
        first.run(seen.append, lambda: len(seen) >= 2)
    second = trainer(folder, tiny_sd3, "diffusion_dpo", train=train, options={"reuse": 3})
    second.resume("", None)
    count = counting(second)
    second.run(lambda event: None, lambda: False)
    assert torch.equal(values(second), values(whole))
    assert count["looked"] == 2 * 2 * 2  # of two pairs at two levels; nothing was drawn
    file = folder / "preferences" / "set-00000.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"abcd")
    third = trainer(folder, tiny_sd3, "diffusion_dpo", train=train, options={"reuse": 3})
    third.state.epoch = 2
    with pytest.raises(ParetuneError, match=r"set-00000.safetensors was changed or damaged"):
        third.epoch()


def test_going_on_from_a_checkpoint_is_bit_identical(tiny_sd3: Path, tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole", tiny_sd3, "pnapo")
    whole.run(lambda event: None, lambda: False)
    first = trainer(tmp_path / "parts", tiny_sd3, "pnapo")
    with pytest.raises(Stopped):
        first.run(lambda event: None, lambda: True)
    second = trainer(tmp_path / "parts", tiny_sd3, "pnapo")
    second.resume("", None)
    second.run(lambda event: None, lambda: False)
    assert torch.equal(values(second), values(whole))


@pytest.mark.parametrize("name", ["diffusion_dpo", "dro", "spo", "d3po"])
def test_where_all_scores_tie_nothing_is_learned_and_it_is_said(
    tiny_sd3: Path, tmp_path: Path, name: str
) -> None:
    def constant(images: torch.Tensor, prompts: Sequence[Prompt]) -> list[float]:
        return [0.5] * len(images)

    of = trainer(tmp_path, tiny_sd3, name, constant)
    before = values(of)
    row = of.epoch()
    assert (row["kept_groups"], row["tied"]) == (0, 2)
    assert torch.equal(values(of), before)
