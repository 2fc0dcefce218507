"""Rewards of text: what a reward model gives is what transformers gives; unfit models are one clear line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from paretune.rewards.base import RewardError, load_reward, score_samples
from paretune.rewards.text.reward_models import TextModelReward, repetition
from paretune.types import ParetuneError, Prompt
from tests.language import make_gpt2_reward

PROMPTS = [Prompt("how do i clean"), Prompt("fix the table")]
ANSWERS = ["yes yes soap", "no maybe a cloth wait day"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gpt2_reward(tmp_path_factory.mktemp("reward"))


def _by_transformers(model: Path, text: str) -> float:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    network = AutoModelForSequenceClassification.from_pretrained(model).eval()
    with torch.no_grad():
        return float(network(**AutoTokenizer.from_pretrained(model)(text, return_tensors="pt")).logits[0, 0])


def test_a_batch_of_different_lengths_scores_as_each_alone(model: Path) -> None:
    reward = TextModelReward(str(model), template="{prompt} please {answer}")
    scores = reward.score(ANSWERS, PROMPTS)
    texts = [f"{p.text} please {a}" for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    assert scores.tolist() == pytest.approx([_by_transformers(model, text) for text in texts], abs=1e-5)
    assert reward.range == (-float("inf"), float("inf"))


def test_squash_and_penalties(model: Path) -> None:
    plain = TextModelReward(str(model)).score(ANSWERS, PROMPTS)
    squashed = TextModelReward(str(model), squash=True)
    assert squashed.range == (0.0, 1.0)
    torch.testing.assert_close(squashed.score(ANSWERS, PROMPTS), plain.sigmoid())
    short = TextModelReward(str(model), length_penalty=0.5, length_limit=4).score(ANSWERS, PROMPTS)
    torch.testing.assert_close(plain - short, torch.tensor([0.0, 1.0]))
    again = ["yes no yes no yes", "yes no a cloth"]
    plain = TextModelReward(str(model)).score(again, PROMPTS)
    repeated = TextModelReward(str(model), repetition_penalty=3.0).score(again, PROMPTS)
    torch.testing.assert_close(plain - repeated, torch.tensor([1.0, 0.0]))


def test_tokens_are_made_once(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reward = TextModelReward(str(model))
    first = reward.score(ANSWERS, PROMPTS)
    monkeypatch.setattr(reward, "_tokenizer", None)  # asked again, it would fail
    assert torch.equal(reward.score(ANSWERS, PROMPTS), first)


def test_unfit_models_are_one_line(model: Path, tmp_path: Path) -> None:
    two = make_gpt2_reward(tmp_path / "two", labels=2)
    with pytest.raises(ParetuneError, match="has 2 labels"):
        load_reward("text_model", model=str(two))
    mixed = make_gpt2_reward(tmp_path / "mixed")
    config = json.loads((mixed / "config.json").read_text()) | {"vocab_size": 5}
    (mixed / "config.json").write_text(json.dumps(config))
    with pytest.raises(ParetuneError, match="do not belong together"):
        load_reward("text_model", model=str(mixed))
    with pytest.raises(ParetuneError, match="there is no folder"):
        load_reward("text_model", model=str(tmp_path / "nowhere"))
    with pytest.raises(ParetuneError, match="no chat template"):
        load_reward("text_model", model=str(model), template="chat")
    with pytest.raises(ParetuneError, match=r"\{answer\}"):
        load_reward("text_model", model=str(model), template="{prompt}")


def test_a_model_without_padding_token_pads_with_its_end(tmp_path: Path) -> None:
    bare = make_gpt2_reward(tmp_path / "bare", pad=False)
    reward = TextModelReward(str(bare))
    alone = torch.cat([reward.score(ANSWERS[i : i + 1], PROMPTS[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(reward.score(ANSWERS, PROMPTS), alone)


def test_length_and_repetition() -> None:
    assert repetition("a b c a b c") == pytest.approx(0.25)
    assert repetition("a b") == 0
    length = load_reward("length", limit=2, most=4)
    assert length.score(["a", "a b c", "a b c d e f"], PROMPTS).tolist() == [0, 0.5, 1]
    assert not length.higher_is_better
    assert load_reward("repetition", words=1).score(["a a", "a b"], PROMPTS).tolist() == [0.5, 0]
    with pytest.raises(ParetuneError, match="most must be above"):
        load_reward("length", limit=9, most=4)


def test_a_nan_names_the_reward_and_the_prompt() -> None:
    class Broken:
        name, range, higher_is_better = "broken", (0.0, 1.0), True

        def score(self, samples: list[str], prompts: list[Prompt]) -> list[float]:
            return [1.0, float("nan")]

    with pytest.raises(RewardError, match=r"broken.*nan.*fix the table"):
        score_samples(Broken(), ANSWERS, PROMPTS)  # type: ignore[arg-type]
