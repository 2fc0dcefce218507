"""`paretune advise`: what the pilot measures, the rule that chooses, one reward, and that it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from paretune.cli import app as cli
from paretune.commands import advise as advising
from paretune.commands import trials
from paretune.commands.advise import advise
from paretune.commands.choices import Evidence, choose, refusal, with_settings
from paretune.config import RunConfig
from paretune.data.prompts import load_prompts
from paretune.ops.agreement import agreement, within_correlation
from paretune.planning.methods import build_plan
from paretune.recipes import load_config, parse_config
from paretune.stages.volumes import Space
from paretune.types import ParetuneError
from tests.conftest import tiny_recipe
from tests.executing import InThisProcess

from .test_tune import _known, tiny

__all__ = ["_known"]  # the rewards of that file


def test_agreement_is_within_prompts() -> None:
    """Both rise from prompt to prompt, and against each other within each."""
    first = torch.tensor([[0.0, 1.0], [10.0, 11.0]])
    second = torch.tensor([[5.0, 4.0], [9.0, 8.0]])
    assert within_correlation(first, second) == pytest.approx(-1)
    assert within_correlation(first, torch.ones(2, 2)) is None
    half = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    assert within_correlation(first, half) == pytest.approx(0.5**0.5)


def test_a_pair_is_compared_where_both_rewards_score() -> None:
    scores = torch.tensor([[[0.0, 1.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 2.0]], [[0.0, 0.0], [3.0, 4.0]]])
    applies = torch.tensor([[True, True], [False, True], [True, False]])
    found = agreement(scores, applies)
    assert found[0] == [pytest.approx(1), pytest.approx(1), None]  # the third never differs there
    assert found[1][2] is None  # no prompt of both
    assert found[1][0] == found[0][1]


def recipe(**changes: Any) -> RunConfig:
    own = {"reward": "pictures.ocr", "prompts": "p", "eval_prompts": "q"}
    raw = {"rounds": 3, "train": {"epochs": 14}, "rewards": {n: dict(own) for n in "ab"}, **changes}
    return parse_config(raw, "x")


LEAN = {"methods": ["mapreduce"], "map.lean": 0.5, "reduce.step": 2, "rounds": 6, "train.epochs": 7}


@pytest.mark.parametrize(
    ("found", "name", "why"),
    [
        (Evidence([0.5], [0.0], [], {}), "soup", "the least agreement of the rewards is +0.50"),
        (Evidence([0.5], [0.4], ["the expert of a worsens b by 0.1"], {}), "lean", "the rewards conflict"),
        (Evidence([-0.2], [0.4], [], {}), "lean", "the rewards conflict"),
        (Evidence([0.5], [-0.2], [], {}), "lean", "the rewards conflict"),
        (Evidence([0.1], [0.0], [], {}), "lean", "the experts change different things"),
        (Evidence([], [0.9], [], {}), "lean", "the experts change different things"),
        (Evidence([0.5], [0.4], [], {"a": 0.9, "b": 0.85}), "distil", "every expert went 85% or more"),
        (Evidence([0.5], [0.4], [], {"a": 0.9, "b": 0.2}), "soup", "the least agreement"),
        (Evidence([0.5], [0.4], [], {"a": 0.9}), "soup", "the least agreement"),  # b has no best value
    ],
)
def test_the_choice_follows_from_the_evidence(found: Evidence, name: str, why: str) -> None:
    choice = choose(recipe(), found)
    assert (choice.name, choice.why[0].startswith(why)) == (name, True)
    if name == "lean":
        assert choice.set == LEAN


CONFLICT, SATURATED = Evidence([-0.2], [0.0], [], {}), Evidence([0.5], [0.4], [], {"a": 0.9, "b": 0.85})
EXACT = {"reduce.method": "exact", "reduce.options": {}}
DISTIL = {"reduce.method": "distil", "reduce.options": {}, "reduce.step": 1, "reduce.momentum": 0}


@pytest.mark.parametrize(
    ("found", "changes", "name", "settings"),
    [
        # A recipe that leans already: its own settings were chosen for it.
        (CONFLICT, {"map": {"lean": 1}, "reduce": {"step": 2}}, "lean", {}),
        (CONFLICT, {"own": {"lean": 0.25}}, "lean", {}),
        # An expert's own epochs are halved too, and its own lean gives way.
        (CONFLICT, {"own": {"epochs": 20, "lean": 0}}, "lean",
         {**LEAN, "rewards.a.epochs": 10, "rewards.a.lean": None}),
        # An expert of weight 0 cannot lean.
        (CONFLICT, {"own": {"weight": 0, "lean": 0}}, "lean", LEAN),
        (CONFLICT, {"own": {"weight": 0}}, "lean", {**LEAN, "rewards.a.lean": 0}),
        # Epochs that cannot be halved, and more rounds than there may be: the steps stay as many.
        (CONFLICT, {"train": {"epochs": 5}}, "lean", {"map.lean": 0.5, "reduce.step": 2}),
        (CONFLICT, {"rounds": 100}, "lean", {"map.lean": 0.5, "reduce.step": 2}),
        (SATURATED, {}, "distil", {"map.lean": 0, "rounds": 1, "train.epochs": 42, **DISTIL}),
        # What was chosen for an average goes.
        (SATURATED,
         {"map": {"lean": 1}, "reduce": {"method": "ties", "step": 2, "options": {"density": 0.3}}}, "distil",
         {"map.lean": 0, "rounds": 1, "train.epochs": 42, **DISTIL}),
        # Twice a student, or beyond the best of a lattice, is no step of an average.
        (CONFLICT, {"reduce": {"method": "distil", "momentum": 0.9}}, "lean",
         {**LEAN, "reduce.method": "exact", "reduce.options": {}, "reduce.momentum": 0}),
        # Two rewards that oppose each other on the same prompts: the student asks one expert alone.
        (Evidence([-0.2], [0.4], [], SATURATED.reached), {}, "lean", LEAN),
        # Forms that the recipe does not allow.
        (CONFLICT, {"objective": {"name": "sft"}}, "mapreduce", {}),
        (SATURATED, {"lora": None}, "soup", {}),
        # A change of all weights has no step.
        (CONFLICT, {"lora": None}, "lean", {"map.lean": 0.5}),
        # These go beyond the average by themselves.
        (CONFLICT, {"reduce": {"method": "nesterov"}}, "lean", {**LEAN, **EXACT}),
        (CONFLICT, {"reduce": {"method": "slerp"}}, "lean", {**LEAN, **EXACT}),
        # An expert that trains in a way of its own, and cannot lean.
        (CONFLICT, {"own": {"objective": "sft", "lean": 0}}, "lean", LEAN),
        (CONFLICT, {"own": {"objective": "sft"}}, "lean", {**LEAN, "rewards.a.lean": 0}),
    ],
)  # fmt: skip
def test_the_choice_is_a_whole_recipe_of_the_same_samples(
    found: Evidence, changes: dict[str, Any], name: str, settings: dict[str, Any]
) -> None:
    changes = dict(changes)
    own = changes.pop("own", {})
    raw = recipe(**changes).model_dump(mode="json")
    raw["rewards"]["a"] |= own
    config = parse_config(raw, "x")
    choice = choose(config, found)
    assert choice.name == name
    assert choice.set == {"methods": ["rewarded_soup" if name == "soup" else "mapreduce"], **settings}
    assert refusal(config, choice.set) is None
    made = parse_config(with_settings(config, choice.set), "x")
    (before,) = build_plan(config.model_copy(update={"methods": made.methods})).methods
    (after,) = build_plan(made).methods
    assert after.samples == before.samples


def test_the_name_of_a_reward_may_have_dots() -> None:
    raw = recipe().model_dump(mode="json")
    raw["rewards"] = {"a.v2": raw["rewards"]["a"] | {"epochs": 20, "lean": 0.5}, "b": raw["rewards"]["b"]}
    config = parse_config(raw, "x")
    made = with_settings(config, {"rewards.a.v2.epochs": 10, "rewards.a.v2.lean": None, "train.epochs": 7})
    assert (made["rewards"]["a.v2"]["epochs"], made["rewards"]["a.v2"]["lean"]) == (10, None)
    assert made["train"]["epochs"] == 7
    assert choose(config, CONFLICT).name == "lean"


def test_joint_training_is_named_beside_the_choice_where_the_recipe_takes_it() -> None:
    assert "with --set 'methods=[morl_dr]'" in choose(recipe(), CONFLICT).beside
    assert choose(recipe(objective={"name": "sft"}), CONFLICT).beside == ""


def test_a_form_that_is_passed_over_is_told() -> None:
    told = choose(recipe(objective={"name": "sft"}), CONFLICT).why[0]
    assert told.startswith("the form lean is passed over: map.lean: objective sft trains on one reward")


def test_a_tax_and_a_way_are_counted_in_the_direction_of_the_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    """b is a cost from 0 to 10: the expert of a raises it, its own halves it."""
    space = Space({"a": (0.0, 1.0), "b": (0.0, 10.0)}, {"a": True, "b": False})
    monkeypatch.setattr(advising, "space_of", lambda config: space)
    base, first, second = {"a": 0.2, "b": 4.0}, {"a": 0.6, "b": 5.0}, {"a": 0.15, "b": 2.0}
    means = {"base": base, "expert:a": first, "expert:b": second}
    # Prompts differ by far more than what an expert does to them: 1.0 on b, the same on all but for .1.
    rows = [
        {"method": model, "round": None, "reward": name, "prompt_set": name, "kind": "reward",
         "prompt": f"p{i}", "index": i, "value": value + 2 * i - 3 + (0.1 * i if model != "base" else 0)}
        for model, own in means.items() for name, value in own.items() if name == "b" for i in range(4)
    ]  # fmt: skip
    assert advising._taxes(recipe(), rows) == ["the expert of a worsens b by 1.150"]
    assert advising._taxes(recipe(), [row for row in rows if row["index"] == 0]) == []
    assert advising._reached(space, means) == pytest.approx({"a": 0.5, "b": 0.5})


def test_the_pilot_measures_on_prompts_of_its_own_and_goes_on(
    tiny_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (trials, advising):
        monkeypatch.setattr(module, "open_executor", InThisProcess)
    config = tiny(tmp_path / "recipe", tiny_sd3, train={"prompts_per_epoch": 2})
    out = tmp_path / "out"
    advice = advise(config, out, lambda _: None, epochs=1, prompts=2)
    assert json.loads((out / "advice.json").read_text()) == advice
    assert (advice["rewards"], advice["prompts"], advice["samples"]) == (["red", "dark"], 4, 8)
    # Red is one of the three parts of what dark counts against.
    (found,) = advice["evidence"]["agreement"]
    assert found < 0
    assert advice["agreement"][0][0] == pytest.approx(1)
    cosines = json.loads((out / "pilot/round-1/merged/diagnostics.json").read_text())["cosines"]
    assert advice["evidence"]["cosines"] == [cosines[0][1]]
    assert set(advice["means"]) == {"base", "expert:red", "expert:dark", "mapreduce@1"}
    assert advice["choice"]["name"] == "lean"
    held = {p.text for p in load_prompts(str(out / "prompts" / "red-validation.jsonl"))}
    rows = [json.loads(r) for file in out.rglob("rows.jsonl") for r in file.read_text().splitlines()]
    assert {row["prompt"] for row in rows} == held
    manifests = {file: file.stat().st_mtime_ns for file in out.rglob("manifest.json")}
    assert advise(config, out, lambda _: None, epochs=1, prompts=2) == advice
    assert {file: file.stat().st_mtime_ns for file in out.rglob("manifest.json")} == manifests


def test_one_reward_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tiny_recipe(tmp_path, Path("pictures"))
    config = load_config(path)
    one = config.model_copy(update={"rewards": {"red": config.rewards["red"]}})
    path.write_text(one.to_yaml())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["paretune", "advise", str(path)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = " ".join(capsys.readouterr().err.split())
    assert (ended.value.code, told) == (
        2, "error: tiny has one reward, so there is nothing to join: use paretune run",
    )  # fmt: skip
    assert not (tmp_path / "runs").exists()
    with pytest.raises(ParetuneError, match="tiny has one reward"):
        advise(one, tmp_path / "out", lambda _: None)


def test_the_command_prints_the_choice_with_its_evidence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = {
        "rewards": ["a", "b"], "agreement": [[1.0, None], [None, 1.0]],
        "cosines": [[1.0, -0.25], [-0.25, 1.0]],
        "choice": {"name": "lean", "set": LEAN, "why": ["the rewards conflict"], "beside": "measure more"},
    }  # fmt: skip
    monkeypatch.setattr(advising, "advise", lambda *_: made)
    given = ["--set", "rewards.preference.options.conflict=1"]
    monkeypatch.setattr("sys.argv", ["paretune", "advise", "quickstart", "--quiet", *given])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr().out
    assert ended.value.code == 0
    assert "-0.25" in told
    assert "choice: lean\n  because the rewards conflict\n" in told
    words = "--set 'methods=[mapreduce]' --set map.lean=0.5 --set reduce.step=2 --set rounds=6"
    assert f"run: paretune run quickstart {' '.join(given)} {words} --set train.epochs=7\n" in told
    assert told.endswith("beside it: measure more\n")


def test_a_search_of_q_is_no_average_to_go_beyond() -> None:
    """Its steps are chosen, so a step beside them would be refused."""
    config = recipe(reduce={"method": "dare-q", "options": {"q": "search"}})
    made = choose(config, CONFLICT)
    assert made.name == "lean"
    assert (made.set["reduce.method"], made.set["reduce.options"]) == ("exact", {})
    assert parse_config(with_settings(config, made.set), "x").reduce.step == 2
