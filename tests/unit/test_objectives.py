"""Objectives by name: their table, their options, the keys of the last revision, and another package's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from paretune.planning.estimate import estimate
from paretune.planning.methods import build_plan
from paretune.recipes import changed_keys, find_recipe, load_config, parse_config
from paretune.training.objectives.base import Options
from paretune.training.objectives.flat_keys import digest_form
from paretune.training.objectives.settings import read_options, settings_for
from paretune.training.objectives.table import OBJECTIVES, find_objective, objective_names
from paretune.training.trainers import check_objective
from paretune.types import ParetuneError

REWARD = {"reward": "pictures.ocr", "prompts": "a.txt", "eval_prompts": "b.txt"}
# The section as the last revision wrote it into config.yaml, whatever the objective.
OLD: dict[str, Any] = {
    "name": "nft", "kl": 0.0, "anchor": "round", "advantage_std": "group", "advantage_clip": 5.0,
    "nft_beta": 0.5, "old_decay": 0.0, "times": 2, "time_shift": 1.0, "sft_share": 0.25,
    "joint": "sum_then_normalise", "clip_range": 0.0001, "sampler": "sde", "noise_level": 0.7,
    "window": None, "shared_noise": False, "ratio": "plain", "options": {},
}  # fmt: skip


def raw(objective: Any = None, **changes: Any) -> dict[str, Any]:
    section = {} if objective is None else {"objective": objective}
    return {"rewards": {"ocr": dict(REWARD)}, **section, **changes}


def options(objective: Any, **changes: Any) -> dict[str, Any]:
    return parse_config(raw(objective, **changes), "x").objective.options


def refusal(objective: Any, **changes: Any) -> str:
    with pytest.raises(ParetuneError) as caught:
        parse_config(raw(objective, **changes), "mine.yaml")
    line = str(caught.value)
    assert line.startswith("mine.yaml: ")
    assert "\n" not in line
    return line.removeprefix("mine.yaml: ")


def from_recipe(folder: Path, recipe: dict[str, Any], *sets: str) -> dict[str, Any]:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return load_config(path, sets).objective.model_dump()


# ---------------------------------------------------------------- options


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_option_has_a_line_and_a_default(name: str) -> None:
    kind = find_objective(name).options_kind
    assert issubclass(kind, Options)
    assert kind.model_config.get("frozen") is True
    for key, field in kind.model_fields.items():
        assert field.description, key
        assert not field.is_required(), key


def test_options_are_completed_and_read_as_numbers() -> None:
    assert options({"options": {"beta": "1e-1"}}) == {
        "times": 2, "time_shift": 1.0, "beta": 0.1, "old_decay": 0.0
    }  # fmt: skip
    assert options({"name": "sft"}) == {"times": 2, "time_shift": 1.0, "share": 0.25}
    assert options({"name": "grpo", "options": {"use_vllm": "auto"}}) == {
        "clip_range": 1e-4, "use_vllm": "auto"
    }  # fmt: skip
    assert options({"name": "dpo"}) == {}


@pytest.mark.parametrize(
    ("objective", "told"),
    [
        ({"options": {"betta": 1}}, "unknown key objective.options.betta; did you mean beta?"),
        ({"beta": 1}, "unknown key objective.beta; did you mean options.beta?"),
        ({"klx": 1}, "unknown key objective.klx; did you mean kl?"),
        ({"options": {"kl": 1}}, "unknown key objective.options.kl; it is a key of every objective: give it"),
        ({"name": "sft", "options": {"q": 1}}, "options.q; sft takes times, time_shift, share"),
        ({"options": {"beta": 0}}, "objective.options.beta: Input should be greater than 0 (got 0)"),
        ({"name": "flow_grpo", "options": {"sampler": "cps", "noise_level": 2}}, "noise_level is at most 1"),
        ({"name": "flow_gpro"}, "objective.name: there is no objective flow_gpro; did you mean flow_grpo?"),
        ({"name": 3}, "objective.name is a text, which YAML takes for a number (3): write it in quotes"),
        ({"name": None}, "objective.name: Input should be a valid string"),
        ({"options": [1]}, "objective.options: Input should be a valid dictionary"),
        ({"options": None}, "objective.options: Input should be a valid dictionary"),
        ([1], "objective is a section of keys, not a value"),
        ({"others": {"sft": {"shar": 1}}}, "unknown key objective.others.sft.shar; did you mean share?"),
        ({"others": {"stf": {}}}, "there is no objective stf; did you mean sft?"),
        ({"others": {"sft": 1}}, "objective.others.sft: Input should be a valid dictionary"),
    ],
)
def test_a_wrong_option_is_one_line_with_the_nearest_right_key(objective: Any, told: str) -> None:
    assert told in refusal(objective)


def test_no_model_library_is_loaded_to_read_a_recipe_and_to_plan_it() -> None:
    code = (
        "import sys\n"
        "from paretune.recipes import find_recipe, load_config\n"
        "from paretune.planning.methods import build_plan\n"
        "from paretune.training.objectives.table import find_objective, objective_names\n"
        "for name in ('quickstart', 'assistant', 'flux1-dev'):\n"
        "    build_plan(load_config(find_recipe(name)))\n"
        "[find_objective(name) for name in objective_names()]\n"
        "print([m for m in ('diffusers', 'transformers', 'peft', 'trl', 'datasets') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


# ---------------------------------------------------------------- another objective by --set


def test_another_objective_takes_what_both_have_of_the_recipes_options(tmp_path: Path) -> None:
    recipe = raw({"name": "nft", "options": {"beta": 0.7, "times": 1, "time_shift": 3}})
    awm = from_recipe(tmp_path, recipe, "objective.name=awm", "objective.options.clip_range=0.2")
    assert awm["options"] == {"times": 1, "time_shift": 3.0, "clip_range": 0.2}
    grpo = from_recipe(tmp_path, recipe, "objective.clip_range=0.2", "objective.name=flow_grpo")
    assert (grpo["options"]["clip_range"], grpo["options"]["noise_level"]) == (0.2, 0.7)
    assert "times" not in grpo["options"]
    same = from_recipe(tmp_path, recipe, "objective.name=nft")
    assert same["options"] == {"times": 1, "time_shift": 3.0, "beta": 0.7, "old_decay": 0.0}


def test_selmas_objective_takes_what_both_have_and_what_others_say() -> None:
    objective = {"options": {"beta": 0.7, "times": 1}, "others": {"sft": {"share": 0.5}}}
    config = parse_config(raw(objective, methods=["selma"]), "x")
    own = settings_for(config.objective, build_plan(config).methods[0].rounds[0].tasks[0].objective)
    assert own.name == "sft"
    assert read_options(own).model_dump() == {"times": 1, "time_shift": 1.0, "share": 0.5}
    assert settings_for(config.objective, None) == config.objective


# ---------------------------------------------------------------- keys of the last revision


def test_flat_keys_mean_what_they_meant() -> None:
    nft = {"nft_beta": 0.7, "times": 1, "time_shift": 3, "old_decay": 0.5}
    assert options(nft) == {"times": 1, "time_shift": 3.0, "beta": 0.7, "old_decay": 0.5}
    assert options({"name": "sft", "sft_share": 0.5})["share"] == 0.5
    window = {"name": "flow_grpo", "window": [0, 3, 2], "clip_range": 0.1, "sampler": "dance",
              "noise_level": 0.2, "ratio": "guard"}  # fmt: skip
    assert options(window) == {"clip_range": 0.1, "sampler": "dance", "noise_level": 0.2,
                               "window": [0, 3, 2], "ratio": "guard"}  # fmt: skip
    trl = {"name": "grpo", "clip_range": 0.2, "options": {"loss_type": "dr_grpo"}}
    assert options(trl) == {"clip_range": 0.2, "loss_type": "dr_grpo"}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_resolved_recipe_of_the_last_revision_is_read(name: str) -> None:
    train = {"group_size": 4} if name == "tree_grpo" else {}  # the leaves of its tree
    both = ({**OLD, "name": name}, {"name": name})
    old, new = (parse_config(raw(own, train=train), "x") for own in both)
    assert old == new
    assert changed_keys(old, new) == []


def test_flat_keys_of_another_objective_are_refused_where_they_were_set() -> None:
    told = refusal({"window": [0, 2]})
    assert told == (
        "objective.window is now objective.options.window of flow_grpo; nft has nothing for it: leave it out"
    )
    assert "objective.options.clip_range of flow_grpo, awm, grpo" in refusal(
        {"name": "kto", "clip_range": 0.2}
    )
    assert "objective.options.share of sft" in refusal({"sft_share": 0.5})
    assert "objective.times and objective.options.times say the same" in refusal(
        {"times": 1, "options": {"times": 2}}
    )


def test_flat_keys_of_selmas_objective_are_its_own() -> None:
    config = parse_config(raw({"name": "flow_grpo", "sft_share": "5e-1", "times": 3}, methods=["selma"]), "x")
    assert config.objective.others == {"sft": {"share": 0.5, "times": 3}}


def test_a_flat_key_that_is_set_replaces_the_recipes_option(tmp_path: Path) -> None:
    recipe = raw({"options": {"beta": 0.7}})
    assert from_recipe(tmp_path, recipe, "objective.nft_beta=0.9")["options"]["beta"] == 0.9
    assert from_recipe(tmp_path, raw(), "objective.nft_beta=0.9")["options"]["beta"] == 0.9


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"nft_beta": 0.7, "times": 1, "old_decay": 0.5, "sft_share": 0.4},
        {"name": "flow_grpo", "window": [0, 3, 2], "sampler": "cps", "times": 3, "kl": 0.1},
        {"name": "awm", "clip_range": 0.2, "shared_noise": True},
        {"name": "sft", "sft_share": 0.4, "time_shift": 3.0},
        {"name": "grpo", "clip_range": 0.2, "options": {"loss_type": "dr_grpo", "epsilon": 0.1}},
        {"name": "dpo", "options": {"beta": 0.3}},
    ],
)
def test_digests_are_made_of_what_the_last_revision_wrote(given: dict[str, Any]) -> None:
    """So an expert that it trained is found, and is not trained again."""
    old = {**OLD, **given}
    assert digest_form(parse_config(raw(old, methods=["selma"]), "x").objective) == old


def test_a_digest_tells_apart_what_the_last_revision_had_no_key_for() -> None:
    one, two = (
        digest_form(parse_config(raw({"others": {"sft": {"times": n}}}), "x").objective) for n in (1, 3)
    )
    assert (one["times"], two["times"]) == (2, 2)
    assert one != two


# ---------------------------------------------------------------- what others ask


def test_the_estimate_asks_the_objective(tmp_path: Path) -> None:
    def hours(*sets: str, method: str = "mapreduce") -> float:
        config = load_config(find_recipe("quickstart"), ["model.steps=5", *sets])
        return estimate(config, build_plan(config), "cpu").hours[method]

    one = hours("objective.options.times=1")
    assert hours("objective.options.times=3") / one == pytest.approx((5 + 9) / (5 + 3))
    assert hours("objective.options.times=1", "objective.kl=1") / one == pytest.approx((5 + 4) / (5 + 3))
    halved = hours("objective.options.times=1", "train.keep=6", "train.group_size=12")
    assert halved / one == pytest.approx((5 + 1.5) / (5 + 3))
    grpo = ["objective.name=flow_grpo"]
    assert hours(*grpo) / one == pytest.approx((5 + 12) / (5 + 3))
    assert hours(*grpo, "objective.options.window=[0, 4, 2]") / one == pytest.approx((5 + 6) / (5 + 3))
    sft = hours("objective.options.times=1", "methods=[selma]", method="selma")
    assert sft / one == pytest.approx((5 + 0.25 * 3) / (5 + 3))


def test_an_objective_for_one_reward_is_refused_for_joint_methods_before_training() -> None:
    recipe = find_recipe("smoke")
    check_objective(load_config(recipe, ["objective.name=sft"]))
    joint = load_config(recipe, ["objective.name=sft", "methods=[mapreduce, morl_d]"])
    with pytest.raises(ParetuneError, match="methods: morl_d trains on several rewards at once, which"):
        check_objective(joint)


def test_names_are_listed_by_what_a_sample_is() -> None:
    assert objective_names("clips")[:5] == ["nft", "awm", "sft", "flow_grpo", "tree_grpo"]
    assert objective_names("texts")[:2] == ["grpo", "dpo"]
