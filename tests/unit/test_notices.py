"""Lines before a run about settings that change nothing or keep less; `plan` refuses what `run` refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from paretune.cli import app as cli
from paretune.config import RunConfig
from paretune.planning.notices import notices, shared_notices
from paretune.recipes import parse_config


def recipe(folder: Path, own: dict[str, list[str]], **changes: Any) -> RunConfig:
    rewards = {}
    for name, texts in own.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"prompt": t}) + "\n" for t in texts))
        file = str(folder / f"{name}.jsonl")
        rewards[name] = {"reward": "pictures.ocr", "prompts": file, "eval_prompts": file}
    return parse_config({"rewards": rewards, **changes}, "x")


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ({"a": ["1", "2", "3", "4"], "b": ["5", "6"]}, None),
        ({"a": ["1", "2", "3", "4"], "b": ["4", "5", "6", "7", "8"]}, "25% of the prompts of a"),
        ({"a": ["1", "2"], "b": ["2", "1"], "c": ["3"]}, "100% of the prompts of a"),
    ],
)
def test_a_student_that_asks_one_of_several_experts_is_told(
    own: dict[str, list[str]], told: str | None, tmp_path: Path
) -> None:
    made = recipe(tmp_path, own, reduce={"method": "distil"})
    lines = shared_notices(made)
    assert [told in line for line in lines] == ([True] if told else [])
    assert shared_notices(recipe(tmp_path, own)) == []
    assert shared_notices(made.model_copy(update={"methods": ("morl_d",)})) == []


@pytest.mark.parametrize(
    ("objective", "own", "told"),
    [
        ({"anchor": "base"}, {}, True),
        ({"anchor": "base", "kl": 0.1}, {}, False),
        ({"anchor": "base"}, {"kl": 0.1}, False),
        ({}, {}, False),
        ({"anchor": "base", "name": "diffusion_dpo"}, {}, False),  # its loss looks at the anchor without a KL
    ],
)
def test_an_anchor_that_no_loss_looks_at_is_told(
    objective: dict[str, Any], own: dict[str, Any], told: bool, tmp_path: Path
) -> None:
    raw = recipe(tmp_path, {"a": ["1"], "b": ["2"]}).model_dump(mode="json")
    raw["objective"] = {"options": {}, **objective}
    raw["rewards"]["a"] |= own
    lines = [line for line in notices(parse_config(raw, "x")) if "anchor" in line]
    expected = "objective.anchor: base changes nothing where objective.kl is 0: set it above 0"
    assert lines == ([expected] if told else [])


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (["objective.name=sft", "map.lean=0.5"], "map.lean: objective sft trains on one reward"),
        (["rewards.preference.options.conflct=1"],
         "reward 'pictures.preference' could not be made: TypeError: got an unexpected keyword argument "
         "'conflct' (it takes conflict)"),
    ],
)  # fmt: skip
def test_plan_refuses_what_run_refuses(
    keys: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for key in keys for word in ("--set", key)]
    monkeypatch.setattr("sys.argv", ["paretune", "plan", "quickstart", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    error = " ".join(capsys.readouterr().err.split())
    assert ended.value.code == 2
    assert error.startswith(f"error: {told}")


@pytest.mark.parametrize(
    ("curriculum", "methods", "rounds", "told"),
    [
        ("rounds", ["mapreduce"], 2, []),
        ("rounds", ["mapreduce"], 1, ["1 of the 2 stages of a in mapreduce"]),
        ("rounds", ["mapreduce", "rewarded_soup", "morl_d"], 2,
         ["1 of the 2 stages of a in rewarded_soup", "1 of the 2 stages of a in morl_d"]),
        ("rounds", ["sequential"], 1, ["1 of the 2 stages of a in sequential"]),
        ("epochs", ["rewarded_soup"], 1, ["1 of the 2 stages of a in rewarded_soup"]),
        ("epochs", ["rewarded_soup"], 2, []),
    ],
)  # fmt: skip
def test_stages_that_a_curriculum_never_comes_to_are_told(
    curriculum: str, methods: list[str], rounds: int, told: list[str], tmp_path: Path
) -> None:
    objective = {"name": "list_dpo", "options": {"curriculum": curriculum}}
    train = {"epochs": 1, "prompts_per_epoch": 1, "updates_per_epoch": 1}
    made = recipe(tmp_path, {"a": ["1"], "b": ["2"]}, objective=objective, methods=methods, rounds=rounds,
                  train=train)  # fmt: skip
    pairs = [{"prompt": "x", "chosen": "a", "rejected": "b", "stage": stage} for stage in (1, 2)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    (tmp_path / "b.jsonl").write_text(json.dumps(pairs[0]) + "\n")
    lines = [line for line in notices(made) if "curriculum" in line]
    assert [wanted in line for wanted, line in zip(told, lines, strict=True)] == [True] * len(told)


@pytest.mark.parametrize(("rewards", "told"), [(["a"], True), (["a", "b"], False)])
def test_one_reward_has_no_other_to_lean_on(rewards: list[str], told: bool, tmp_path: Path) -> None:
    made = recipe(tmp_path, {name: [name] for name in rewards}, map={"lean": 0.5}, methods=["mapreduce"])
    assert any("no other to lean on" in line for line in notices(made)) is told


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"stop_when": {"kl": 1, "length": 2}}, ["stop_when.kl never stops", "stop_when.length is of"]),
        ({"stop_when": {"kl": 1}, "objective": {"kl": 0.1}}, []),
        ({"stop_when": {"diversity": 0.5}}, []),
    ],
)
def test_limits_that_never_stop_an_expert_are_told(
    changes: dict[str, Any], told: list[str], tmp_path: Path
) -> None:
    made = recipe(tmp_path, {"a": ["1"], "b": ["2"]}, **changes)
    lines = [line for line in notices(made) if "stop_when" in line]
    assert [start in line for start, line in zip(told, lines, strict=True)] == [True] * len(told)


@pytest.mark.parametrize(("decay", "told"), [(0.0, True), (0.01, False)])
def test_a_decay_to_the_start_of_nothing_is_told(decay: float, told: bool, tmp_path: Path) -> None:
    raw = recipe(tmp_path, {"a": ["1"], "b": ["2"]}).model_dump(mode="json")
    raw["train"] |= {"decay": "start", "weight_decay": decay}
    expected = "train.decay: start changes nothing where train.weight_decay is 0: set it above 0"
    assert [line for line in notices(parse_config(raw, "x")) if "decay" in line] == [expected] * told
