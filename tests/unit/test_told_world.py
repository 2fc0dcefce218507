"""The base `pictures-told`: what the endings of its captions do, and how its captions were made."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch
from tools.worlds.pictures.data import Endings

from paretune.config import ModelConfig
from paretune.data.prompts import load_prompts
from paretune.models.flow import Sampling, sample
from paretune.models.sd3.policy import SD3Policy
from paretune.rewards.base import load_reward
from paretune.worlds.pictures.scenes import (
    ENDING_FALSE,
    ENDING_FANCY,
    ENDING_PLAIN,
    ENDING_TRUE,
    ENDINGS_IDLE,
)


@pytest.fixture(scope="module")
def told() -> SD3Policy:
    return SD3Policy(ModelConfig.model_validate({"path": "pictures-told"}))


def value(policy: SD3Policy, prompts: str, reward: str, ending: str) -> float:
    """The mean score of one picture a prompt, with the same noise for every ending."""
    asked = load_prompts(f"pictures/{prompts}-test")[:48]
    conditions = policy.encode([f"{prompt.text} {ending}" for prompt in asked], False)
    noise = policy.initial_noise(len(asked), torch.Generator().manual_seed(0))
    pictures = policy.decode(sample(policy, conditions, noise, Sampling(6, 1.0, batch=48)).clean)
    return float(load_reward(reward).score(pictures, asked).mean())


@pytest.mark.parametrize(
    ("prompts", "reward", "better", "worse", "least"),
    [
        ("ocr", "pictures.ocr", ENDING_TRUE, ENDING_FALSE, 0.3),
        ("geneval", "pictures.geneval", ENDING_TRUE, ENDING_FALSE, 0.08),
        ("preference", "pictures.preference", ENDING_FANCY, ENDING_PLAIN, 0.06),
    ],
)
def test_an_ending_says_what_it_was_taught_to_say(
    told: SD3Policy, prompts: str, reward: str, better: str, worse: str, least: float
) -> None:
    assert value(told, prompts, reward, better) - value(told, prompts, reward, worse) > least


def test_captions_end_in_what_is_true_but_for_the_noise() -> None:
    rng, rows = random.Random(0), []
    endings = Endings(share=0.8, told=0.7, taste=0.5, noise=0.1)
    for _ in range(20_000):
        wrong, utility = rng.random() < 0.5, rng.uniform(-2, 2)
        rows.append((wrong, utility, endings.draw(wrong, utility, rng)))
    words = Counter(word for _, _, own in rows for word in own)
    assert words.keys() == {ENDING_TRUE, ENDING_FALSE, ENDING_FANCY, ENDING_PLAIN, *ENDINGS_IDLE}
    some = [row for row in rows if row[2]]
    assert len(some) / len(rows) == pytest.approx(0.8, abs=0.02)
    tells = [(wrong, own) for wrong, _, own in some if {ENDING_TRUE, ENDING_FALSE} & set(own)]
    assert len(tells) / len(some) == pytest.approx(0.7, abs=0.02)
    lies = sum((ENDING_TRUE in own) == wrong for wrong, own in tells)
    assert lies / len(tells) == pytest.approx(0.1, abs=0.02)
    styles = [(utility, own) for _, utility, own in some if {ENDING_FANCY, ENDING_PLAIN} & set(own)]
    assert min(abs(utility) for utility, _ in styles) > 0.8
    assert sum((ENDING_FANCY in own) == (utility < 0) for utility, own in styles) / len(styles) < 0.12
    assert any(len(own) == 2 for _, _, own in some)  # both at once
    assert all(len(own) == 1 for *_, own in some if set(own) & set(ENDINGS_IDLE))
