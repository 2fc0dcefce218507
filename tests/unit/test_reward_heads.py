"""Rewards that give several values in one pass: loaded once, a sample scored once, a wrong head told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from paretune.config import RewardConfig
from paretune.planning.methods import build_plan
from paretune.recipes import parse_config
from paretune.rewards.base import check_head, load_reward, reward_of, score_samples
from paretune.rewards.heads import HeadReward
from paretune.stages.map import MapJob, expert_inputs
from paretune.stages.prompt_checks import check_prompts
from paretune.training.mixture import Mixture, PromptSet
from paretune.types import ParetuneError, Prompt

CODE = '''
from pathlib import Path
LOG = Path(__file__).with_name("log")

def note(word):
    with LOG.open("a") as log:
        log.write(f"{word}\\n")

class Quality:
    name, higher_is_better, range = "quality", True, (0.0, 1.0)
    heads = {"light": (0.0, 1.0), "red": None}

    def __init__(self, gain=1.0):
        self.gain = gain
        note("made")

    def score(self, samples, prompts):
        note(f"scored {len(prompts)}")
        level = samples.flatten(1).mean(1) * self.gain
        return {"light": level, "red": samples[:, 0].flatten(1).mean(1)}

def undeclared(samples, prompts):
    return {"a": [0.25] * len(prompts), "b": [0.5] * len(prompts)}
'''
PROMPTS = [Prompt(f"p{i}") for i in range(4)]
DRAWN = torch.arange(4.0).view(-1, 1, 1, 1).expand(-1, 3, 2, 2) / 4


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "heads.py"
    path.write_text(CODE)
    return path


def own(file: Path, head: str | None, reward: str = "Quality", **options: Any) -> RewardConfig:
    return RewardConfig(
        reward=f"{file}:{reward}", prompts="a.txt", eval_prompts="b.txt", head=head, options=options
    )


def log(file: Path) -> list[str]:
    return file.with_name("log").read_text().split("\n")[:-1]


def test_two_heads_of_one_scorer_are_loaded_once_and_a_sample_is_scored_once(file: Path) -> None:
    light, red = (reward_of(own(file, head, gain=0.5), head) for head in ("light", "red"))
    sets = [PromptSet(light, PROMPTS[:2]), PromptSet(red, PROMPTS[2:])]
    mixture = Mixture(sets, "all")
    scores = mixture.score(DRAWN, torch.tensor([0, 2]), 30.0)
    assert scores.raw.tolist() == [[[0, 0.125], [0.25, 0.375]], [[0, 0.25], [0.5, 0.75]]]
    assert log(file) == ["made", "scored 4"]
    assert (light.name, light.range, red.range) == ("light", (0.0, 1.0), (0.0, 1.0))
    mixture.score(DRAWN, torch.tensor([0, 2]), 30.0)  # another call scores anew, as after a resume
    assert log(file) == ["made", "scored 4", "scored 4"]


def test_other_options_are_another_scorer(file: Path) -> None:
    first, second = reward_of(own(file, "light"), "a"), reward_of(own(file, "light", gain=2.0), "b")
    assert score_samples(first, DRAWN, PROMPTS).tolist() == [0, 0.25, 0.5, 0.75]
    assert score_samples(second, DRAWN, PROMPTS).tolist() == [0, 0.5, 1.0, 1.5]


def test_only_new_samples_are_scored_for_the_second_head(file: Path) -> None:
    light, red = (reward_of(own(file, head), head) for head in ("light", "red"))
    score_samples(light, DRAWN[:3], PROMPTS[:3])
    assert score_samples(red, DRAWN, PROMPTS).tolist() == [0, 0.25, 0.5, 0.75]
    assert log(file) == ["made", "scored 3", "scored 1"]


def test_our_own_classes_may_have_heads_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own:
        name, range, higher_is_better = "own", (0.0, 1.0), False
        heads = ("x", "y")

        def score(self, samples: Any, prompts: Any) -> dict[str, Any]:
            return {"x": torch.ones(len(prompts)), "y": torch.zeros(len(prompts))}

    monkeypatch.setattr("paretune.rewards.base.find_reward", lambda *_: Own)
    section = RewardConfig(reward="length", prompts="a", eval_prompts="b", head="y")
    reward = reward_of(section, "mine")
    assert isinstance(reward, HeadReward)
    assert score_samples(reward, DRAWN, PROMPTS).tolist() == [0, 0, 0, 0]
    assert not reward.higher_is_better
    with pytest.raises(ParetuneError, match=r"rewards\.mine: length gives several values; say which"):
        reward_of(section.model_copy(update={"head": None}), "mine")
    monkeypatch.setattr(Own, "usual_head", "x", raising=False)
    usual = reward_of(section.model_copy(update={"head": None}), "mine")
    assert score_samples(usual, DRAWN, PROMPTS).tolist() == [1, 1, 1, 1]
    assert (usual.name, load_reward("length", head="y").name) == ("mine", "own")


def test_a_model_of_ours_outlives_its_rewards(monkeypatch: pytest.MonkeyPatch) -> None:
    """One prompt set's reward is gone before the next one's is made."""
    made: list[float] = []

    class Own:
        name, range, higher_is_better, heads, usual_head = "own", (0.0, 1.0), True, ("x", "y"), "x"

        def __init__(self, gain: float = 1.0) -> None:
            made.append(gain)

        def score(self, samples: Any, prompts: Any) -> dict[str, Any]:
            return {"x": torch.ones(len(prompts)), "y": torch.zeros(len(prompts))}

    monkeypatch.setattr("paretune.rewards.base.find_reward", lambda *_: Own)
    for head in ("x", "y", "x"):
        score_samples(load_reward("length", head=head, gain=3.0), DRAWN, PROMPTS)
    assert made == [3.0]


@pytest.mark.parametrize(
    ("head", "reward", "told"),
    [
        ("ligth", "Quality", r"rewards\.mine\.head: quality has no head 'ligth'; its heads: light, red"),
        (None, "Quality", r"rewards\.mine: .*gives several values; .*rewards\.mine\.head: one of light, red"),
    ],
)
def test_a_wrong_or_missing_head_is_reported_before_training(
    file: Path, head: str | None, reward: str, told: str
) -> None:
    file.with_name("p.txt").write_text("a red circle\n")
    section = {"reward": f"{file}:{reward}", "prompts": str(file.with_name("p.txt")), "head": head}
    config = parse_config({"rewards": {"mine": {**section, "eval_prompts": section["prompts"]}}}, "x")
    with pytest.raises(ParetuneError, match=told) as caught:
        check_prompts(config)
    assert "\n" not in str(caught.value)


def test_undeclared_heads_are_reported_at_the_first_call(file: Path) -> None:
    assert score_samples(reward_of(own(file, "b", "undeclared"), "b"), DRAWN, PROMPTS).tolist() == [0.5] * 4
    with pytest.raises(ParetuneError, match=r"'undeclared' has no head 'c'; its heads: a, b \(prompt 'p0'\)"):
        score_samples(reward_of(own(file, "c", "undeclared"), "c"), DRAWN, PROMPTS)
    with pytest.raises(ParetuneError, match=r"its keys \(a, b\) are heads, name one by rewards\.NAME\.head"):
        score_samples(load_reward(f"{file}:undeclared"), DRAWN, PROMPTS)


@pytest.mark.parametrize("reward", ["pictures.contrast", "aesthetic"])  # aesthetic has an option head
def test_a_head_of_a_reward_with_one_value_is_one_line(reward: str) -> None:
    section = RewardConfig(reward=reward, prompts="a", eval_prompts="b", head="x")
    with pytest.raises(ParetuneError, match=f"rewards.mine.head: {reward} gives one value and has no heads"):
        reward_of(section, "mine")


def test_a_head_of_ours_is_told_before_its_model_is_loaded() -> None:
    section = RewardConfig(reward="videoalign", prompts="a", eval_prompts="b", head="vq")
    told = r"rewards\.mine\.head: videoalign has no head 'vq'; its heads: VQ, MQ, TA, overall"
    with pytest.raises(ParetuneError, match=told):
        reward_of(section, "mine")
    check_head("videoalign", "VQ")


def test_the_head_counts_in_digests_and_none_leaves_them_alone(tmp_path: Path) -> None:
    def digest(**changes: Any) -> str:
        file = "pictures/ocr-test"
        reward = {"reward": "pictures.ocr", "prompts": file, "eval_prompts": file}
        config = parse_config({"rewards": {"ocr": {**reward, **changes}}}, "x")
        task = build_plan(config).methods[0].rounds[0].tasks[0]
        return expert_inputs(MapJob(config, task, tmp_path, "base"))

    assert digest() == digest(head=None) != digest(head="x")
