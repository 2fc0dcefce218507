"""Drawing from several prompt sets, scoring each sample by the rewards that apply, joint advantages."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from paretune.config import ObjectiveConfig
from paretune.ops.advantages import best_of_group, group_advantages
from paretune.rewards.base import FunctionReward
from paretune.training.mixture import Mixture, PromptSet
from paretune.training.objectives.sft import best_samples
from paretune.types import ParetuneError, Prompt

PLAIN = ObjectiveConfig()


class Words(FunctionReward):
    """Scores only prompts with a word."""

    def applies(self, prompt: Prompt) -> bool:
        return "text" in prompt.metadata


def _level(samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
    return samples.flatten(1).mean(1)


def _double(samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
    return 2 * _level(samples, prompts)


def _mixture(scoring: str) -> Mixture:
    shapes = [Prompt(f"shape {i}") for i in range(4)]
    signs = [Prompt(f"sign {i}", {"text": "ab"}) for i in range(4)]
    level = PromptSet(FunctionReward(_level, "level"), shapes, weight=3.0, kl=0.1)
    words = PromptSet(Words(_double, "words"), signs, weight=1.0, kl=0.3)
    return Mixture([level, words], scoring)


def _samples(values: list[float]) -> torch.Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)


def test_every_set_gives_its_share_and_no_prompt_comes_twice() -> None:
    mixture = _mixture("own")
    for seed in range(5):
        index = mixture.draw(5, torch.Generator().manual_seed(seed))
        assert len(set(index.tolist())) == 5
        assert sorted([int((index < 4).sum()), int((index >= 4).sum())]) == [2, 3]


def test_one_set_is_drawn_as_a_permutation() -> None:
    source = PromptSet(FunctionReward(_level, "level"), [Prompt(str(i)) for i in range(7)])
    index = Mixture([source]).draw(3, torch.Generator().manual_seed(3))
    assert index.tolist() == torch.randperm(7, generator=torch.Generator().manual_seed(3))[:3].tolist()


def test_own_scoring_asks_only_the_reward_of_the_set() -> None:
    scores = _mixture("own").score(_samples([0.0, 1.0, 0.25, 0.75]), torch.tensor([1, 6]), 10)
    assert scores.raw.tolist() == [[[0.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.5, 1.5]]]
    assert scores.applies.tolist() == [[True, False], [False, True]]
    assert scores.mean() == pytest.approx((0 + 1 + 0.5 + 1.5) / 4)


def test_all_scoring_asks_every_reward_that_applies() -> None:
    scores = _mixture("all").score(_samples([0.0, 1.0, 0.25, 0.75]), torch.tensor([1, 6]), 10)
    assert scores.raw.tolist() == [[[0.0, 1.0], [0.25, 0.75]], [[0.0, 0.0], [0.5, 1.5]]]
    assert scores.applies.tolist() == [[True, True], [False, True]]


def test_own_advantages_are_each_reward_s_own() -> None:
    mixture = _mixture("own")
    scores = mixture.score(_samples([0.0, 1.0, 0.25, 0.75]), torch.tensor([1, 6]), 10)
    got = mixture.advantages(scores, PLAIN)
    wanted = group_advantages(torch.tensor([[0.0, 1.0], [0.5, 1.5]]))
    assert torch.equal(got, wanted)


def test_joint_advantages_are_those_of_the_weighted_sum() -> None:
    mixture = _mixture("all")
    scores = mixture.score(_samples([0.0, 1.0, 0.25, 0.75]), torch.tensor([1, 6]), 10)
    got = mixture.advantages(scores, PLAIN)
    total = torch.tensor([[0.0, 3.0], [3 * 0.25 + 0.5, 3 * 0.75 + 1.5]])
    assert torch.allclose(got, group_advantages(total))
    each = mixture.advantages(scores, PLAIN.model_copy(update={"joint": "normalise_then_sum"}))
    assert each[0].tolist() == pytest.approx([-3, 3], rel=1e-3)  # one reward of weight 3
    assert each[1].tolist() == pytest.approx([-4, 4], rel=1e-3)  # both agree


def test_a_cost_counts_backwards() -> None:
    cost = FunctionReward(_level, "cost")
    cost.higher_is_better = False
    mixture = Mixture([PromptSet(cost, [Prompt("a")])])
    scores = mixture.score(_samples([0.0, 1.0]), torch.tensor([0]), 10)
    assert scores.mean() == 0.5
    assert mixture.advantages(scores, PLAIN)[0].tolist() == pytest.approx([1, -1], rel=1e-3)


def test_supervised_fine_tuning_keeps_the_best_of_each_group() -> None:
    scores = torch.tensor([[1.0, 3.0, 2.0, 0.0], [5.0, 5.0, 5.0, 5.0]])
    assert best_of_group(scores, 0.5).tolist() == [[0, 1, 1, 0], [1, 1, 0, 0]]
    assert best_of_group(scores, 0.01).sum(1).tolist() == [1, 1]
    mixture = _mixture("all")
    raw = mixture.score(_samples([0.0, 1.0]), torch.tensor([5]), 10)
    with pytest.raises(ParetuneError, match="no joint form"):
        best_samples(mixture, raw, 0.5)


def test_the_anchor_of_a_mixture_is_the_mean() -> None:
    assert _mixture("own").kl == pytest.approx(0.2)
