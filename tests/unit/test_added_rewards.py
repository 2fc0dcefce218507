"""A reward that another package adds in one file: found by its name, trusted, and run in its own process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from paretune.planning.methods import build_plan
from paretune.recipes import load_config
from paretune.rewards import load_reward, score_samples
from paretune.rewards.apart import RewardApart
from paretune.rewards.base import find_reward
from paretune.rewards.process import reward_process
from paretune.rewards.trust import code_of, registered_only
from paretune.stages.map import mixture_of
from paretune.stages.prompt_checks import check_prompts, check_unloaded
from paretune.stages.scorers import named
from paretune.types import ParetuneError, Prompt
from tests.conftest import tiny_recipe
from tests.packages import EXAMPLES, example, install


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["flatness = my_reward:Flatness", "ocr = my_reward:Flatness", "gone = my_reward:Missing"]
    lines += ["number = broken_rewards:NUMBER"]
    files = example("my_reward") | {"broken_rewards": "NUMBER = 5"}
    install(tmp_path / "site", monkeypatch, {"paretune.rewards": lines}, files)


def test_it_scores_by_its_name_in_a_process_of_its_own() -> None:
    reward_process().kill()  # one that runs already does not see what is installed now
    reward = load_reward("flatness")
    assert isinstance(reward, RewardApart)
    assert (reward.name, reward.range, reward.higher_is_better) == ("flatness", (0.0, 1.0), False)
    half = torch.zeros(1, 3, 4, 4)
    half[..., :2] = 1.0
    shown = torch.cat([torch.full((1, 3, 4, 4), 0.3), half])
    assert score_samples(reward, shown, [Prompt("a")] * 2).tolist() == [1.0, 0.0]


def test_a_recipe_trains_on_it_and_its_code_needs_no_other_word(tiny_sd3: Path, tmp_path: Path) -> None:
    reward_process().kill()
    path = tiny_recipe(tmp_path / "recipe", tiny_sd3)
    config = load_config(path, ["rewards.red.reward=flatness", "rewards.dark.reward=flatness",
                                "rewards.red.judge=flatness"])  # fmt: skip
    assert code_of(config) == []
    assert registered_only(config, False, print) is config
    check_unloaded(config, [], trusted=False)
    check_prompts(config)
    task = build_plan(config).methods[0].rounds[0].tasks[0]
    sets = mixture_of(config, task).prompt_sets
    assert [prompt_set.reward.name for prompt_set in sets] == ["red"]


def test_digests_know_whose_it_is_and_a_name_of_paretunes_own_stays_its_own() -> None:
    assert named("flatness") == "flatness = my_reward:Flatness"
    assert named("ocr") == "scene_ocr"


@pytest.mark.parametrize(
    ("name", "told"),
    [("flatnes", "unknown reward 'flatnes'; did you mean 'flatness'? (known: geneval, ocr, "),
     ("gone", "reward gone (my_reward:Missing) cannot be loaded: AttributeError: module 'my_reward' has no"),
     ("number", "reward 'number' is a int, not a class or function")],
)  # fmt: skip
def test_what_is_wrong_with_one_is_a_line(name: str, told: str) -> None:
    with pytest.raises(ParetuneError) as caught:
        find_reward(name)
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)


def test_two_packages_that_add_one_name_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = {"paretune.rewards": ["flatness = other_reward:Flatness"]}
    install(tmp_path / "other", monkeypatch, other, {"other_reward": ""})
    with pytest.raises(ParetuneError, match=r"two installed packages add flatness to paretune\.rewards, "):
        load_reward("flatness")


def test_the_page_shows_the_example() -> None:
    page = (EXAMPLES.parent / "docs" / "add-a-reward.md").read_text()
    assert '--8<-- "examples/my_reward.py"' in page
    assert len(page.splitlines()) < 60
