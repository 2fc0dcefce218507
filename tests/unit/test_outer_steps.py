"""Outer steps: how much of an average is folded, momentum, the best step; spherical averages."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from paretune.adapters.store import load_delta, save_delta
from paretune.ops.lowrank import LowRank
from paretune.ops.merging import merge_experts
from paretune.ops.outer import STEPS, best_step, read_step, scaled, with_momentum
from paretune.ops.spherical import slerp
from paretune.planning.budget import counted
from paretune.planning.methods import build_plan, rewarded_soup
from paretune.planning.words import described
from paretune.recipes import parse_config
from paretune.stages.menu import menus_of
from paretune.stages.reduce import reduce_round
from paretune.stages.subjects import subjects_of
from paretune.training.checks import check_training
from paretune.types import ParetuneError

from .test_reduce import ONE, TWO, Experts, config_of, matrix, noise

MEAN = torch.tensor([[0.5, 0.0], [0.0, 1.0]])  # of ONE and TWO


def merged(run: Path, **reduce: Any) -> Experts:
    experts = Experts(run, **reduce)
    for number in (1, 2, 3):
        experts.write(number, *((ONE, TWO) if number != 2 else (TWO, TWO)))
    return experts


@pytest.mark.parametrize(
    ("method", "options"),
    [("exact", {}), ("ties", {"density": 1}), ("slerp", {}), ("min-norm", {}),
     ("nesterov", {"momentum": 0.5, "outer_lr": 0.8})],
)  # fmt: skip
def test_a_step_folds_so_many_times_the_average_of_every_reducer(
    tmp_path: Path, method: str, options: dict[str, float]
) -> None:
    plain = merged(tmp_path / "plain", method=method, options=options).reduce()
    for step in (0.5, 2.5):
        found = merged(tmp_path / str(step), method=method, options=options, step=step)
        torch.testing.assert_close(found.reduce(), step * plain)
        assert found.facts()["step"] == step


def test_a_step_of_one_is_the_plain_average_bit_for_bit(tmp_path: Path) -> None:
    runs = [Experts(tmp_path / n, **r) for n, r in (("a", {}), ("b", {"step": 1, "momentum": 0}))]
    files = []
    for run in runs:
        run.write(1, noise(1), noise(2))
        run.reduce()
        names = ("adapter_model.safetensors", "manifest.json", "diagnostics.json")
        files.append([(run.folder() / name).read_bytes() for name in names])
    assert files[0] == files[1]


def test_the_digest_of_a_plain_average_is_that_of_earlier_versions(tmp_path: Path) -> None:
    run = Experts(tmp_path)
    run.write(1, ONE, TWO)
    run.reduce()
    assert run.facts(name="manifest.json")["inputs"] == (
        "bee89a91c11b0397e4a218e8086a4c7b49235cf656dc43dca6193bf3c8b53474"
    )


def test_the_soup_is_the_mean_whatever_the_step(tmp_path: Path) -> None:
    config = config_of(step=3, momentum=0.5)
    (round_,) = rewarded_soup(config).rounds
    for task, change in zip(round_.tasks, (ONE, TWO), strict=True):
        save_delta(tmp_path / task.folder, {"m": matrix(change)}, "base", {})
    reduce_round(config, round_, tmp_path, None)
    torch.testing.assert_close(load_delta([tmp_path / "soup" / "merged"])["m"].dense(), MEAN)


class TestMomentum:
    """M_k = μ M_{k-1} + the average of round k; the step scales M_k, and M_k itself is handed on."""

    def test_three_rounds(self, tmp_path: Path) -> None:
        run, second = merged(tmp_path, step=2, momentum=0.5), torch.tensor(TWO)
        torch.testing.assert_close(run.reduce(1), 2 * MEAN)
        torch.testing.assert_close(run.reduce(2), 2 * (0.5 * MEAN + second))
        torch.testing.assert_close(run.reduce(3), 2 * (0.5 * (0.5 * MEAN + second) + MEAN))
        assert run.facts(2)["momentum"] == 0.5

    def test_a_round_done_again_gives_the_same_bits(self, tmp_path: Path) -> None:
        run = merged(tmp_path, momentum=0.9)
        run.reduce(1)
        run.reduce(2)
        names = ("adapter_model.safetensors", "momentum/adapter_model.safetensors")
        before = [(run.folder(2) / name).read_bytes() for name in names]
        (run.folder(2) / "manifest.json").unlink()
        run.reduce(2)
        assert [(run.folder(2) / name).read_bytes() for name in names] == before

    def test_a_module_that_a_round_lacks_goes_on_by_its_momentum(self) -> None:
        first = with_momentum({"a": matrix(ONE)}, None, 0.5)
        second = with_momentum({"b": matrix(TWO)}, first, 0.5)
        torch.testing.assert_close(second["a"].dense(), 0.5 * torch.tensor(ONE))
        torch.testing.assert_close(second["b"].dense(), torch.tensor(TWO))


class TestSearch:
    """The best of a few steps, by a value that is made up."""

    @staticmethod
    def prefer(steps: tuple[float, ...]) -> list[float]:
        return [-abs(step - 1.6) for step in steps]

    def test_the_best_step_is_folded_and_all_are_written_down(self, tmp_path: Path) -> None:
        run = merged(tmp_path, step="search")
        torch.testing.assert_close(run.reduce(measure_steps=self.prefer), 1.5 * MEAN)
        assert run.facts()["step"] == 1.5
        assert [row["step"] for row in run.facts()["steps"]] == list(STEPS)
        direction = load_delta([tmp_path / "round-1" / "direction"])["m"].dense()
        torch.testing.assert_close(direction, MEAN)  # what was measured, times a step

    def test_a_finished_round_asks_nothing(self, tmp_path: Path) -> None:
        run, asked = merged(tmp_path, step=[1, 4]), list[tuple[float, ...]]()

        def measure(steps: tuple[float, ...]) -> list[float]:
            asked.append(steps)
            return [0.0, 1.0]

        torch.testing.assert_close(run.reduce(measure_steps=measure), 4 * MEAN)
        run.reduce(measure_steps=measure)
        assert asked == [(1.0, 4.0)]

    def test_without_a_measure_or_a_number_it_is_one_line(self, tmp_path: Path) -> None:
        run = merged(tmp_path, step="search")
        with pytest.raises(ParetuneError, match="a choice of steps needs measure_steps"):
            run.reduce()
        with pytest.raises(ParetuneError, match="is not a number"):
            run.reduce(measure_steps=lambda steps: [math.nan] * len(steps))

    def test_of_equal_values_the_step_nearest_to_one_is_taken(self) -> None:
        assert best_step((0.5, 1.0, 3.0), (1.0, 1.0, 1.0)) == 1.0
        assert best_step((0.5, 1.0, 3.0), (1.0, 0.5, 1.0)) == 0.5

    def test_its_samples_stand_in_the_budget(self, tmp_path: Path) -> None:
        """3 rounds, 5 steps, 2 rewards of 8 and 3 prompts, 2 samples each; weights on a lattice of 3."""
        own = {"reward": "pictures.ocr", "eval_prompts": "q"}
        raw = {
            "rounds": 3, "rewards": {n: {**own, "prompts": n} for n in "ab"}, "evaluate": {"samples": 2},
            "reduce": {"step": "search", "prompts": 8},
        }  # fmt: skip
        config = parse_config(raw, "x")
        method = counted(config, build_plan(config), {"b": 3}).methods[0]
        assert method.reduce_samples == 3 * 5 * (8 + 3) * 2
        assert method.scores == method.samples + method.reduce_samples
        assert counted(config, build_plan(config), {"b": 3}).methods[1].reduce_samples == 0
        raw["reduce"] = {"method": "search", "options": {"divisions": 2, "prompts": 4}}
        config = parse_config(raw, "x")
        assert build_plan(config).methods[0].reduce_samples == 3 * 3 * (4 + 4) * 2


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (0, "a step of 0 folds nothing, so that no round would change the model: give more"),
        (-1, "a step lies above 0 and is at most 100, not -1"),
        (float("nan"), "a step lies above 0 and is at most 100, not nan"),
        (True, "give a number above 0, search, or a list of numbers"),
        ("serach", "give a number above 0, search, or a list of numbers, not 'serach'"),
        ([1], "a list of steps to choose from has two or more, not [1]"),
        ([1, 0], "a step of 0 folds nothing, so that no round would change the model: give more"),
    ],
)
def test_a_wrong_step_is_one_line(step: Any, told: str) -> None:
    with pytest.raises(ParetuneError) as caught:
        config_of(step=step)
    assert str(caught.value) == f"test: reduce.step: {told}"


def test_nesterov_has_a_momentum_of_its_own() -> None:
    with pytest.raises(ParetuneError, match=r"nesterov has a momentum of its own: give it as options\.mom"):
        config_of(method="nesterov", momentum=0.5)


def test_a_search_of_weights_takes_no_momentum() -> None:
    """It measures averages, and a momentum would fold something else."""
    config = config_of(method="search", momentum=0.5)  # a run of an earlier version is read
    with pytest.raises(ParetuneError, match=r"^reduce\.momentum: search measures averages without it"):
        check_training(config)


def test_a_recipe_keeps_its_steps_when_it_is_written_and_read() -> None:
    for step in (1, 2.5, "search", [1, 2]):
        config = config_of(step=step)
        again = parse_config(config.model_dump(mode="json"), "x")
        assert again.reduce == config.reduce
    assert read_step("search") == STEPS


def test_the_report_says_what_is_folded() -> None:
    assert described(config_of()) == []
    assert described(config_of(step=2)) == ["MapReduce folds 2 times the average of its experts."]
    told = described(config_of(step=[1, 2], momentum=0.5))[0]
    assert "the best of 1, 2 times" in told
    assert "momentum 0.5" in told


def test_a_menu_adds_its_experts_with_the_step() -> None:
    menu = menus_of(build_plan(config_of(step=2)))[0]
    assert menu.at((0.25, 0.75)).scales[-2:] == (0.5, 1.5)


def test_a_menu_has_the_step_that_the_run_has_chosen(tmp_path: Path) -> None:
    plan = build_plan(config_of(step="search"))
    assert menus_of(plan, tmp_path)[0].step == 1.0  # nothing is chosen yet
    merged = tmp_path / plan.methods[0].rounds[-1].merged
    merged.mkdir(parents=True)
    facts = {"cosines": [[1.0, 0.0], [0.0, 1.0]], "spread": 1.0, "contraction": None, "step": 3.0}
    (merged / "diagnostics.json").write_text(json.dumps(facts))
    menu = menus_of(plan, tmp_path)[0]
    assert menu.at((0.25, 0.75)).scales[-2:] == (0.75, 2.25)
    raw = config_of(step="search").model_dump(mode="json") | {"evaluate": {"lattice": 2}}
    lattice = parse_config(raw, "x")
    corners = [s for s in subjects_of(lattice, plan, tmp_path) if s.lattice and "mapreduce" in s.method]
    assert {subject.scales[-1] for subject in corners} == {3.0}


def test_an_average_as_anchor_needs_one() -> None:
    own = {"reward": "pictures.ocr", "prompts": "p", "eval_prompts": "q"}
    raw = {"objective": {"anchor": "average", "kl": 0.1}, "rewards": {"a": own}}
    with pytest.raises(ParetuneError, match=r"objective\.anchor: average is that of train\.ema_decay"):
        parse_config(raw, "x")
    assert parse_config({**raw, "train": {"ema_decay": 0.9}}, "x").objective.anchor == "average"


class TestSpherical:
    def test_two_orthogonal_changes_keep_their_length(self) -> None:
        one, other = matrix([[1.0, 0.0], [0.0, 0.0]]), matrix([[0.0, 0.0], [0.0, 1.0]])
        half = slerp([one, other], [1, 1]).dense()
        torch.testing.assert_close(half, torch.eye(2) * 0.5**0.5)
        third = slerp([one, other], [2, 1]).dense()
        torch.testing.assert_close(third, torch.diag(torch.tensor([0.75**0.5, 0.5])))

    def test_three_are_taken_in_one_after_another(self) -> None:
        three = [LowRank(torch.eye(3)[:, [i]], torch.eye(3)[[i]]) for i in range(3)]
        found = slerp(three, [1, 1, 1]).dense()
        # λ = 1/2, then 1/3: cos 30° of the first two's, which has length 1, and sin 30° of the third.
        want = torch.tensor([0.75**0.5 * 0.5**0.5, 0.75**0.5 * 0.5**0.5, 0.5])
        torch.testing.assert_close(found.diagonal(), want)

    def test_equal_changes_stay_and_absent_ones_count_as_zero(self) -> None:
        one = noise(1)
        torch.testing.assert_close(slerp([one, one, one], [1, 2, 1]).dense(), one.dense())
        torch.testing.assert_close(slerp([None, one], [1, 1]).dense(), one.dense() / 2)
        torch.testing.assert_close(slerp([one, None], [1, 1]).dense(), one.dense() / 2)

    def test_every_module_has_its_own_angle(self) -> None:
        experts = [
            {"same": matrix(ONE), "apart": matrix([[1.0, 0.0], [0.0, 0.0]])},
            {"same": matrix(ONE), "apart": matrix([[0.0, 0.0], [0.0, 1.0]])},
        ]
        found = merge_experts(experts, method="slerp").deltas
        torch.testing.assert_close(found["same"].dense(), torch.tensor(ONE))
        torch.testing.assert_close(found["apart"].dense(), torch.eye(2) * 0.5**0.5)


def test_scaling_by_one_copies_nothing() -> None:
    changes = {"m": noise(1)}
    assert scaled(changes, 1)["m"] is changes["m"]
