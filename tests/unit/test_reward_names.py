"""The names of rewards: plain ones are for real pictures; those of before are told, or read in older runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from paretune.commands.measure import score_folder
from paretune.recipes import changed_keys, find_recipe, load_config, parse_config, shipped_recipes
from paretune.rewards.base import find_reward, load_reward
from paretune.rewards.table import FORMER, REWARDS, identity
from paretune.stages.scorers import evaluate_inputs, named
from paretune.types import ParetuneError
from paretune.worlds.embedded import EMBEDDED

FORMER_NAMES = {
    "geneval_photo": "geneval", "scene_ocr": "ocr",
    "geneval": "pictures.geneval", "geneval_strict": "pictures.geneval_strict", "ocr": "pictures.ocr",
    "preference": "pictures.preference", "rapidocr": "pictures.rapidocr",
    "preference_judge": "pictures.preference_judge", "vqa": "pictures.vqa", "contrast": "pictures.contrast",
    "prominence": "pictures.prominence", "video_quality": "clips.video_quality",
    "motion_quality": "clips.motion_quality", "visual_judge": "clips.visual_judge",
    "motion_judge": "clips.motion_judge", "helpful_rules": "assistant.helpful_rules",
    "harmless_rules": "assistant.harmless_rules",
}  # fmt: skip


def recipe(reward: str, judge: str | None = None, model: str = "pictures", **other: Any) -> dict[str, Any]:
    own = {"reward": reward, "judge": judge, "prompts": "a.txt", "eval_prompts": "b.txt"}
    return {"model": {"path": model}, "rewards": {"words": own}, **other}


def refused(raw: dict[str, Any]) -> str:
    with pytest.raises(ParetuneError) as caught:
        parse_config(raw, "mine.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_table_of_former_names() -> None:
    assert FORMER == FORMER_NAMES
    assert set(FORMER_NAMES.values()) <= set(REWARDS)


def test_the_plain_names_are_those_of_real_pictures() -> None:
    assert find_reward("geneval").__name__ == "GenEvalPhoto"
    assert find_reward("ocr").__name__ == "SceneOcr"
    assert find_reward("pictures.geneval").__name__ == "GenEvalReward"


@pytest.mark.parametrize("former", sorted(set(FORMER_NAMES) - {"geneval", "ocr"}))
def test_a_former_name_says_the_new_one(former: str) -> None:
    told = f"the reward {former} is called {FORMER_NAMES[former]} now"
    for raw in (recipe(former), recipe(former, model="org/real-model")):
        assert refused(raw) == f"mine.yaml: rewards.words.reward: {told}"
    with pytest.raises(ParetuneError) as caught:
        load_reward(former)
    assert str(caught.value) == told


@pytest.mark.parametrize("name", ["geneval", "ocr"])
@pytest.mark.parametrize("model", ["pictures", "pictures-flux", str(EMBEDDED["pictures"])])
def test_a_reward_for_real_pictures_is_refused_on_an_embedded_model(name: str, model: str) -> None:
    why = f"{name} is made for real pictures, and the embedded model {model} draws none"
    told = f"{why}: write pictures.{name}"
    assert refused(recipe(name, model=model)) == f"mine.yaml: rewards.words.reward: {told}"
    assert refused(recipe("a.py:F", judge=name, model=model)) == f"mine.yaml: rewards.words.judge: {told}"
    untargeted = recipe("a.py:F", model=model, evaluate={"untargeted": [name]})
    assert refused(untargeted) == f"mine.yaml: evaluate.untargeted: {told}"
    assert parse_config(recipe(name, model="org/real-model"), "x").rewards["words"].reward == name


def test_drawings_are_not_scored_by_a_reward_for_real_pictures(tmp_path: Path) -> None:
    pytest.importorskip("rapidocr_onnxruntime")
    (tmp_path / "shown").mkdir()
    Image.new("RGB", (32, 32), "white").save(tmp_path / "shown" / "0.png")
    (tmp_path / "p.jsonl").write_text('{"prompt": "a sign saying drum", "text": "drum"}\n')
    with pytest.raises(ParetuneError, match=r"^ocr is made for real pictures, .* scored by pictures\.ocr$"):
        score_folder("ocr", tmp_path / "shown", str(tmp_path / "p.jsonl"))
    assert score_folder("pictures.ocr", tmp_path / "shown", str(tmp_path / "p.jsonl"))[0]["value"] == 0.0


# ---------------------------------------------------------------- runs of the revision before


def older(folder: Path, name: str) -> Path:
    """A run's config.yaml as the revision before left it: with former names and without executor.kind."""
    raw = load_config(find_recipe(name)).model_dump(mode="json")
    del raw["executor"]["kind"]
    for own in raw["rewards"].values():
        for key in ("reward", "judge"):
            own[key] = next((old for old, now in FORMER_NAMES.items() if now == own[key]), own[key])
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(raw))
    (folder / "plan.json").write_text("{}")
    return folder / "config.yaml"


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_the_recipe_of_an_older_run_is_read_by_the_names_of_today(tmp_path: Path, name: str) -> None:
    path, today = older(tmp_path / "run", name), load_config(find_recipe(name))
    assert load_config(path) == today
    assert changed_keys(load_config(path), today) == []
    (tmp_path / "link.yaml").symlink_to(path)
    assert load_config(tmp_path / "link.yaml") == today


def test_untargeted_rewards_of_an_older_run_too(tmp_path: Path) -> None:
    path = older(tmp_path / "run", "smoke")
    raw = yaml.safe_load(path.read_text())
    raw["evaluate"]["untargeted"] = ["contrast", "geneval_strict", "mine.py:F"]
    path.write_text(yaml.safe_dump(raw))
    wanted = ("pictures.contrast", "pictures.geneval_strict", "mine.py:F")
    assert load_config(path).evaluate.untargeted == wanted
    assert load_config(path, ["evaluate.untargeted=[pictures.contrast]"]).evaluate.untargeted == wanted[:1]


@pytest.mark.parametrize("fault", ["a copy under another name", "no plan beside it", "a recipe of today"])
def test_any_other_recipe_with_former_names_is_refused(tmp_path: Path, fault: str) -> None:
    path = older(tmp_path / "run", "smoke")
    if fault == "a copy under another name":
        path = path.rename(tmp_path / "run" / "mine.yaml")
    elif fault == "no plan beside it":
        (tmp_path / "run" / "plan.json").unlink()
    else:
        path.write_text(path.read_text().replace("executor:\n", "executor:\n  kind: local\n"))
    with pytest.raises(ParetuneError, match=r"write pictures\.geneval$"):
        load_config(path)


def test_digests_know_a_reward_by_its_first_name_so_that_older_runs_go_on() -> None:
    assert [named(now) for now in FORMER_NAMES.values()] == list(FORMER_NAMES)
    assert named("length") == "length"
    assert len({identity(name) for name in REWARDS}) == len(REWARDS)
    raw = recipe("pictures.ocr", evaluate={"untargeted": ["pictures.contrast"]})
    settings = parse_config(raw, "x").evaluate
    assert evaluate_inputs(settings) == settings.model_dump(mode="json") | {"untargeted": ["contrast"]}


def test_the_display_names_are_those_of_the_tables() -> None:
    assert load_reward("pictures.contrast").name == "contrast"
    assert load_reward("assistant.helpful_rules").name == "helpful_rules"
    assert torch.is_tensor(load_reward("length").score(["a"], []))
