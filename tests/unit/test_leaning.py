"""Experts that lean on other rewards: whose prompts they draw, what scores them, and what stays as it was."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from paretune.config import ObjectiveConfig, RunConfig
from paretune.ops.advantages import group_advantages
from paretune.ops.preference_losses import win_rates
from paretune.planning.budget import counted
from paretune.planning.methods import build_plan
from paretune.planning.words import described
from paretune.recipes import load_config, parse_config
from paretune.rewards.base import FunctionReward
from paretune.stages.map import MapJob, expert_inputs, mixture_of
from paretune.stages.prompt_checks import check_prompts
from paretune.training.language.scoring import Scoring
from paretune.training.mixture import Mixture, PromptSet
from paretune.training.objectives.tree_grpo import TreeGRPO
from paretune.training.preferences.builders import group_scores
from paretune.training.preferences.candidates import step_candidates
from paretune.training.trainers import check_objective
from paretune.types import ParetuneError, Prompt
from tests.conftest import tiny_recipe

ORDERS = ("sum_then_normalise", "normalise_then_sum")
SHAPES = [Prompt(f"shape {i}", {"word": "ab"} if i == 2 else {}) for i in range(4)]
SIGNS = [Prompt(f"sign {i}", {"word": "ab"}) for i in range(3)]


class Words(FunctionReward):
    """Scores only prompts with a word."""

    def applies(self, prompt: Prompt) -> bool:
        return "word" in prompt.metadata


class Counting:
    """A reward function that counts the samples it scores. factor: of the samples' level."""

    def __init__(self, factor: float) -> None:
        self.factor, self.asked = factor, 0

    def __call__(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        self.asked += len(samples)
        return self.factor * samples.flatten(1).mean(1) + samples[:, 0, 0, 0].square()


LEVEL, WORD = Counting(1.0), Counting(-3.0)
LEVEL_REWARD = FunctionReward(LEVEL, "level")


def sets(weight: float = 1.0, prompts: Sequence[Prompt] = SIGNS) -> list[PromptSet]:
    return [
        PromptSet(FunctionReward(LEVEL, "level"), SHAPES, kl=0.1),
        PromptSet(Words(WORD, "word"), prompts, weight, kl=0.3),
    ]


def leaning(share: float) -> Mixture:
    """The expert of `level`, which leans on `word`."""
    return Mixture(sets(share, ()), "lean")


INDEX = torch.tensor([0, 2])  # of the two, `word` applies to the second
DRAWN = torch.tensor([0.0, 0.2, 1.0, 0.5, 0.1, 0.9]).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)


def config(**changes: Any) -> RunConfig:
    rewards = {
        name: {"reward": f"pictures.{name}", "prompts": f"pictures/{name}-train",
               "eval_prompts": f"pictures/{name}-test"} for name in ("geneval", "ocr")
    }  # fmt: skip
    for name, own in changes.pop("own", {}).items():
        rewards[name].update(own)
    return parse_config({"rounds": 2, "rewards": rewards, **changes}, "x")


def digest_of(made: RunConfig, method: int, reward: int) -> str:
    task = build_plan(made).methods[method].rounds[0].tasks[reward]
    return expert_inputs(MapJob(made, task, Path("run"), "base"))


def test_it_draws_its_own_prompts_alone() -> None:
    mixture = leaning(0.5)
    assert mixture.prompts == SHAPES
    alone = Mixture(sets()[:1])
    for seed in range(3):
        drawn = [m.draw(3, torch.Generator().manual_seed(seed)).tolist() for m in (mixture, alone)]
        assert drawn[0] == drawn[1]
    assert mixture.kl == 0.1


def test_every_reward_that_applies_scores_a_sample_once() -> None:
    LEVEL.asked = WORD.asked = 0
    scores = leaning(0.5).score(DRAWN, INDEX, 10)
    assert (LEVEL.asked, WORD.asked) == (6, 3)
    assert scores.applies.tolist() == [[True, True], [False, True]]
    own = Mixture(sets()[:1]).score(DRAWN, INDEX, 10)
    assert (scores.mean(), scores.spread()) == (own.mean(), own.spread())  # the metrics tell its own reward


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("share", [0.25, 1.0])
def test_the_share_is_that_of_the_other_reward(share: float, order: str) -> None:
    mixture = leaning(share)
    scores = mixture.score(DRAWN, INDEX, 10)
    found = mixture.advantages(scores, ObjectiveConfig(joint=order))  # type: ignore[arg-type]
    level, word = scores.raw
    assert torch.equal(found[0], group_advantages(level)[0])  # nothing else applies to it
    if order == "sum_then_normalise":
        want = group_advantages(level + share * word)
    else:
        want = group_advantages(level) + share * group_advantages(word)
    torch.testing.assert_close(found[1], want[1])


@pytest.mark.parametrize("order", ORDERS)
def test_a_share_of_one_is_the_joint_policy_on_own_prompts(order: str) -> None:
    settings = ObjectiveConfig(joint=order)  # type: ignore[arg-type]
    mixture, joint = leaning(1.0), Mixture(sets(), "all")
    ours = mixture.advantages(mixture.score(DRAWN, INDEX, 10), settings)
    assert torch.equal(ours, joint.advantages(joint.score(DRAWN, INDEX, 10), settings))


def test_an_answer_is_scored_alike() -> None:
    """TRL gets the weights, and None where a reward does not apply."""
    scoring = Scoring(leaning(0.25), None, 3, 5.0)  # type: ignore[arg-type]
    assert scoring.arguments(ObjectiveConfig()) == {
        "reward_weights": [1.0, 0.25], "multi_objective_aggregation": "sum_then_normalize",
    }  # fmt: skip
    later = scoring.arguments(ObjectiveConfig(joint="normalise_then_sum"))
    assert later["multi_objective_aggregation"] == "normalize_then_sum"


def test_a_recipe_without_map_keeps_every_digest() -> None:
    """The digests are those of the version before `map`."""
    plain = config(methods=["mapreduce", "selma"], rounds=4)
    assert digest_of(plain, 0, 0) == "9ae93c4b181d5e30c2f25e0c5e0575380755780f80490a90153d54fa545641c5"
    assert digest_of(plain, 1, 1) == "7f3cc2e8ac85f60894e9ceb1cfb4f7faab679c1a61715b79ca96748a1d823165"
    zero = config(methods=["mapreduce", "selma"], rounds=4, map={"lean": 0})
    assert build_plan(zero) == build_plan(plain)
    half = config(methods=["mapreduce", "selma"], rounds=4, map={"lean": 0.5})
    assert digest_of(half, 0, 0) != digest_of(plain, 0, 0)
    assert digest_of(half, 1, 1) == digest_of(plain, 1, 1)


def test_the_plan_leans_reward_by_reward_and_the_soup_stays_alone() -> None:
    made = config(map={"lean": 0.5}, own={"ocr": {"lean": 0.0, "weight": 3.0}})
    reduce, soup = build_plan(made).methods
    for round_ in reduce.rounds:
        first, second = round_.tasks
        assert (first.scoring, first.lean, first.others) == ("lean", 0.5, ("ocr",))
        assert (second.scoring, second.lean, second.others) == ("own", 0.0, ())
    assert [t.continues for t in soup.rounds[0].tasks] == [None, "round-1/experts/ocr"]
    assert all(t.scoring == "own" for t in soup.rounds[0].tasks)
    mixture = mixture_of(made, reduce.rounds[0].tasks[0])
    assert [(s.reward.name, s.weight, bool(s.prompts)) for s in mixture.prompt_sets] == [
        ("geneval", 1.0, True), ("ocr", 1.5, False),
    ]  # fmt: skip
    # 2 rounds of 12 epochs of 96 samples an expert; one of the two is scored twice.
    assert (reduce.samples, reduce.scores, soup.scores) == (4608, 3 * 2304, 4608)
    assert counted(made, build_plan(made), {}).methods[0].scores == 3 * 2304
    assert "0.5 (geneval) and 0 (ocr)" in described(made)[0]
    assert described(config()) == []


def test_one_reward_leans_on_nothing() -> None:
    own = {"reward": "pictures.ocr", "prompts": "p", "eval_prompts": "q"}
    (method, _) = build_plan(parse_config({"map": {"lean": 1}, "rewards": {"a": own}}, "x")).methods
    assert method.rounds[0].tasks[0].scoring == "own"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"map": {"lean": 1.5}}, "x: map.lean: Input should be less than or equal to 1 (got 1.5)"),
        ({"map": {"lean": -0.1}}, "x: map.lean: Input should be greater than or equal to 0 (got -0.1)"),
        ({"own": {"ocr": {"lean": 2}}},
         "x: rewards.ocr.lean: Input should be less than or equal to 1 (got 2)"),
        ({"map": {"leaning": 1}}, "x: unknown key map.leaning; did you mean lean?"),
    ],
)  # fmt: skip
def test_a_wrong_share_is_one_line(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ParetuneError) as caught:
        config(**changes)
    assert str(caught.value) == told


def test_an_objective_of_one_reward_cannot_lean() -> None:
    own = config(map={"lean": 0.5}, own={"ocr": {"objective": "sft"}}, methods=["mapreduce"])
    with pytest.raises(ParetuneError, match=r"^rewards\.ocr\.lean: objective sft trains on one reward"):
        check_objective(own)
    alone = {"ocr": {"objective": "sft", "lean": 0}}
    check_objective(config(own=alone, map={"lean": 0.5}, methods=["mapreduce"]))
    filed = {"ocr": {"objective": "diffusion_dpo", "pairs": "p.jsonl"}}
    with pytest.raises(ParetuneError, match=r"^rewards\.ocr\.lean: its samples come from a file"):
        check_objective(config(own=filed, map={"lean": 0.5}, methods=["mapreduce"]))
    made = config(map={"lean": 0.5}, objective={"name": "sft"})
    with pytest.raises(ParetuneError, match=r"^map\.lean: objective sft trains on one reward"):
        check_objective(made)
    check_objective(made.model_copy(update={"methods": ("morl_d",), "objective": config().objective}))


REFUSING = """
class Strict:
    name = "strict"
    higher_is_better = True
    range = (0.0, 1.0)
    def score(self, samples, prompts):
        return [0.0] * len(samples)
    def applies(self, prompt):
        return True
    def check(self, prompts):
        if any("red" not in prompt.text for prompt in prompts):
            raise ValueError("no red in it")
"""


def test_a_prompt_that_another_reward_cannot_score_is_reported_before_training(tmp_path: Path) -> None:
    path = tiny_recipe(tmp_path, Path("pictures"), map={"lean": 0.5})
    (tmp_path / "strict.py").write_text(REFUSING)
    (tmp_path / "red.txt").write_text("red\n")
    red = str(tmp_path / "red.txt")
    strict = {"reward": f"{tmp_path / 'strict.py'}:Strict", "prompts": red, "eval_prompts": red}
    made = load_config(path)
    raw = made.model_dump(mode="json")
    raw["rewards"] = {"dark": raw["rewards"]["dark"], "strict": strict}
    with pytest.raises(ParetuneError, match=r"reward strict, which map\.lean asks too, cannot score 'two"):
        check_prompts(parse_config(raw, "x"))
    raw["map"] = {"lean": 0.0}
    check_prompts(parse_config(raw, "x"))


@pytest.mark.parametrize("order", ORDERS)
def test_lists_are_ordered_by_the_joint_score_too(order: str) -> None:
    """A share of a hundredth of a reward of wide range must not turn the order of the expert's own reward."""
    mixture, settings = leaning(0.01), ObjectiveConfig(joint=order)  # type: ignore[arg-type]
    scores = mixture.score(DRAWN, INDEX, 10)
    maker: Any = SimpleNamespace(preset=SimpleNamespace(scores="scores"),
                                 setting=SimpleNamespace(settings=settings))  # fmt: skip
    found = group_scores(mixture, scores, maker)
    assert torch.equal(found, mixture.advantages(scores, settings))
    level = scores.raw[0]
    assert torch.equal(found.argsort(1), level.argsort(1))


def test_votes_count_by_the_share() -> None:
    mixture = leaning(0.5)
    scores = mixture.score(DRAWN, INDEX, 10)
    maker: Any = SimpleNamespace(preset=SimpleNamespace(scores="wins"))
    level, word = (win_rates(raw[None]) for raw in scores.raw)
    found = group_scores(mixture, scores, maker)
    torch.testing.assert_close(found[0], level[0])
    torch.testing.assert_close(found[1], (level[1] + 0.5 * word[1]) / 1.5)


def test_the_expert_of_a_reward_without_weight_does_not_lean() -> None:
    check_objective(config(own={"ocr": {"weight": 0, "lean": 0}}, map={"lean": 0.5}))
    with pytest.raises(ParetuneError, match=r"rewards\.ocr\.weight: an expert that leans .*ocr\.lean to 0"):
        check_objective(config(own={"ocr": {"weight": 0}}, map={"lean": 0.5}))


def test_rewards_without_weight_share_the_prompts_that_no_other_scores() -> None:
    mixture = Mixture([PromptSet(LEVEL_REWARD, SHAPES, 0.0), *sets(2.0)[1:]], "all")
    applies = torch.tensor([[True, True], [False, True]])
    assert mixture.shares(applies).tolist() == [[1.0, 0.0], [0.0, 2.0]]


@pytest.mark.parametrize(
    ("objective", "shared"), [({"name": "nft"}, True), ({"name": "pnapo"}, False),
                              ({"name": "pnapo", "options": {"fade": False}}, True)],
)  # fmt: skip
def test_a_soup_shares_no_beginning_whose_course_is_another(objective: dict[str, Any], shared: bool) -> None:
    """pnapo's factor falls over all epochs of an expert, of which a soup has more than a round."""
    made = config(methods=["mapreduce", "rewarded_soup"], objective=objective)
    soup = build_plan(made).methods[1]
    assert [task.continues is not None for task in soup.rounds[0].tasks] == [shared] * 2


@pytest.mark.parametrize("name", ["tree_grpo", "spo"])
def test_a_wide_policy_draws_as_wide_whatever_the_objective(name: str) -> None:
    asked: list[int] = []

    def draw(count: int, generator: torch.Generator) -> torch.Tensor:
        asked.append(count)
        raise KeyError

    learner: Any = SimpleNamespace(mixture=SimpleNamespace(draw=draw), task=SimpleNamespace(width=3))
    setting = SimpleNamespace(train=SimpleNamespace(prompts_per_epoch=4))
    maker: Any = SimpleNamespace(learner=learner, setting=setting, options=None, schedule=None)
    begin = partial(step_candidates, maker) if name == "spo" else partial(TreeGRPO.rollouts, maker, learner)
    with pytest.raises(KeyError):
        begin(torch.Generator())
    assert asked == [12]
