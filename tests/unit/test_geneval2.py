"""GenEval 2's Soft-TIFA: what counts as an answer, the means, and a tiny model."""

from typing import Any

import pytest
import torch

from paretune.rewards import load_reward, score_samples
from paretune.rewards.base import applies_to
from paretune.rewards.photo.geneval2 import GenEval2, beginnings
from paretune.rewards.photo.qwen import CHAT, shared_qwen
from paretune.types import ParetuneError, Prompt
from tests.photo_models import make_qwen, photographs

PIGS = ["How many pigs are in the image?", "two"]
GREEN = ["Is the backpack green?", "Yes"]
WORDS = (*CHAT.split(), *PIGS[0].split(), *GREEN[0].split(), "Yes", "yes", "two", "Two", "2")


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_qwen(tmp_path_factory.mktemp("qwen"), WORDS)


def test_what_counts_as_an_answer() -> None:
    """evaluation.py, soft_tifa."""
    assert sorted(beginnings(*PIGS)) == sorted(["two", "Two", " two", " Two", "2", " 2"])
    assert sorted(beginnings(*GREEN)) == sorted(["Yes", "yes", " yes", " Yes"])
    assert "other" in beginnings("How many pigs are there?", "eleven")


def test_a_score_is_the_mean_of_the_facts(qwen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = shared_qwen(qwen, "float32", "cpu")
    token = model.tokenizer.convert_tokens_to_ids
    asked: list[str] = []

    def chances(picture: torch.Tensor, question: str) -> torch.Tensor:
        asked.append(question)
        told = torch.zeros(len(model.tokenizer))
        numbers = question.startswith("How")
        wanted = {"two": 0.3, "2": 0.2, "Yes": 0.4} if numbers else {"Yes": 0.5, "yes": 0.3, "two": 0.1}
        for word, chance in wanted.items():
            told[token(word)] = chance
        return told

    monkeypatch.setattr(model, "chances", chances)
    prompts = [Prompt("a green backpack and two pigs", {"vqa_list": [PIGS, GREEN]})]
    reward = load_reward("geneval2", model=qwen, dtype="float32", device="cpu")
    assert score_samples(reward, photographs(1), prompts).tolist() == pytest.approx([(0.5 + 0.8) / 2])
    assert asked[0] == "How many pigs are in the image? Answer in one word."
    geometric = GenEval2(qwen, "geometric", "float32", "cpu")
    assert geometric.score(photographs(1), prompts).tolist() == pytest.approx([(0.5 * 0.8) ** 0.5])


def test_on_a_tiny_model(qwen: str) -> None:
    reward = load_reward("geneval2", model=qwen, dtype="float32", device="cpu")
    scores = score_samples(reward, photographs(2), [Prompt("a", {"vqa_list": [PIGS, GREEN]})] * 2)
    assert ((scores > 0) & (scores < 1)).all()
    assert scores[0] != scores[1]


@pytest.mark.parametrize("record", [{}, {"vqa_list": []}, {"vqa_list": [["a?"]]}, {"vqa_list": [["a?", 2]]}])
def test_a_record_without_questions_is_one_line(record: dict[str, Any]) -> None:
    prompt = Prompt("two pigs", record)
    with pytest.raises(ParetuneError, match=r"geneval2 needs 'vqa_list'.*'two pigs'"):
        GenEval2.check([prompt])


def test_another_mean_is_named(qwen: str) -> None:
    with pytest.raises(ParetuneError, match="mean is arithmetic or geometric, not 'least'"):
        load_reward("geneval2", model=qwen, mean="least")
    reward = load_reward("geneval2", model=qwen, dtype="float32", device="cpu")
    assert not applies_to(reward, Prompt("a dog"))
