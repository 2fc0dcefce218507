"""Rewards of everyday answers, against values worked out by hand and by the libraries that define them."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from paretune.data.prompts import load_prompts
from paretune.rewards.text import everyday
from paretune.rewards.text.everyday import Brevity, CleanWords, DistinctPairs, Positivity, ReadingEase
from paretune.rewards.text.instructions import CHECKS, Instructions
from paretune.rewards.text.perplexity import Perplexity
from paretune.types import ParetuneError, Prompt
from tests.language import make_llama


def _scores(reward: Any, answers: list[str], **metadata: Any) -> list[float]:
    return reward.score(answers, [Prompt("how", metadata)] * len(answers)).tolist()


def test_positivity_is_vaders_compound() -> None:
    # "VADER is smart, handsome, and funny." is .8316 in the README of vaderSentiment.
    answers = ["VADER is smart, handsome, and funny.", "The book was bad.", "A table."]
    assert _scores(Positivity(), answers) == pytest.approx([0.8316, -0.5423, 0.0], abs=1e-4)


def test_reading_ease_is_fleschs_formula() -> None:
    """14 words, 2 sentences, 17 syllables."""
    answer = "The cat sat on the mat. The dog was under a very big table."
    words, sentences, syllables = 14, 2, 17
    expected = 206.835 - 1.015 * words / sentences - 84.6 * syllables / words
    assert _scores(ReadingEase(), [answer])[0] == pytest.approx(expected, abs=0.01)
    hard = "Institutional internationalisation necessitates organisational interdependence."
    assert _scores(ReadingEase(), [hard, "", "Go."]) == [0.0, 0.0, 100.0]


def test_brevity_is_flat_between_its_bounds_and_falls_outside() -> None:
    answers = [" ".join(["word"] * n) for n in (0, 2, 5, 30, 60, 90, 200)]
    assert _scores(Brevity(), answers) == pytest.approx([0.0, 0.4, 1.0, 1.0, 0.5, 0.0, 0.0])
    with pytest.raises(ParetuneError, match="rising order"):
        Brevity(words=90, most=30)


def test_distinct_pairs_and_clean_words() -> None:
    answers = ["a b a b", "one two three", "word", ""]
    assert _scores(DistinctPairs(), answers) == pytest.approx([2 / 3, 1.0, 0.0, 0.0])
    assert _scores(CleanWords(), ["what a nice day", "what the hell"]) == [1.0, 0.0]


FOLLOWED: dict[str, tuple[dict[str, Any], str, str]] = {
    "max_words": ({"count": 3}, "one two three", "one two three four"),
    "min_words": ({"count": 3}, "one two three", "one two"),
    "sentences": ({"count": 2}, "It works. Version 2.5 is fine!", "It works."),
    "bullets": ({"count": 2}, "* a\n* b", "* a\n* b\n* c"),
    "numbered": ({"count": 2}, "1. a\n2) b", "1. a\n3. b"),
    "paragraphs": ({"count": 2}, "a\n\nb", "a\nb"),
    "include": ({"phrase": "Good luck"}, "well, good luck then", "goodluck"),
    "forbid": ({"phrase": "very"}, "everything", "very"),
    "start": ({"phrase": "In short"}, "in short, yes", "yes, in short"),
    "end": ({"phrase": "Good luck!"}, "Yes. Good luck!", "Good luck! Bye."),
    "lowercase": ({}, "all small.", "Not small."),
    "uppercase": ({}, "ALL LARGE.", "NOT large."),
    "no_commas": ({}, "a b", "a, b"),
    "question": ({}, "is it?", "it is."),
}


@pytest.mark.parametrize("kind", CHECKS)
def test_each_instruction_is_followed_or_not(kind: str) -> None:
    own, right, wrong = FOLLOWED[kind]
    checks = [{"kind": kind, **own}]
    assert _scores(Instructions(), [right, wrong, f"  {right}\n"], checks=checks) == [1.0, 0.0, 1.0]
    if kind != "sentences":  # silence follows nothing
        assert _scores(Instructions(), [""], checks=checks) == [0.0]


def test_rows_of_marks_and_of_blank_lines_take_no_long_time() -> None:
    """Their time grew with the square of their length: 10 s."""
    blank, dots = "a" + "\n" * 30000 + "- b\n 1. c", "a. b" + "." * 20000 + "c? " + "!" * 20000
    start = time.process_time()
    assert CHECKS["bullets"][1](blank, count=1)
    assert CHECKS["numbered"][1](blank, count=1)
    assert CHECKS["sentences"][1](dots, count=2)
    assert time.process_time() - start < 3


def test_the_score_is_the_share_of_the_instructions() -> None:
    checks = [{"kind": "lowercase"}, {"kind": "max_words", "count": 2}, {"kind": "question"}]
    assert _scores(Instructions(), ["is it?", "Is it?", "Is it not?"], checks=checks) == pytest.approx(
        [1.0, 2 / 3, 1 / 3]
    )


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({}, "has no list `checks` of instructions"),
        ({"checks": [{"kind": "rhymes"}]}, "unknown kind of check 'rhymes' \\(known: max_words, "),
        ({"checks": [{"kind": "max_words"}]}, "the check max_words takes count \\(int\\)"),
        ({"checks": [{"kind": "max_words", "count": "3"}]}, "the check max_words takes count \\(int\\)"),
        ({"checks": [{"kind": "lowercase", "count": 3}]}, "the check lowercase takes no key"),
    ],
)
def test_instructions_that_cannot_be_checked_are_one_line(metadata: dict[str, Any], told: str) -> None:
    with pytest.raises(ParetuneError, match=told):
        Instructions.check([Prompt("how do i?", metadata)])
    assert not Instructions().applies(Prompt("how do i?", metadata))


def test_perplexity_is_that_of_the_answers_tokens(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = make_llama(tmp_path)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([tokenizer("how do i clean the table")["input_ids"]])
    labels = ids.clone()
    labels[0, :3] = -100
    with torch.no_grad():
        expected = math.exp(float(model(input_ids=ids, labels=labels).loss))
    judge = Perplexity(str(folder))
    prompts = [Prompt("how do i")] * 3
    found = judge.score(["clean the table", "", "clean the table"], prompts)
    assert found[0] == pytest.approx(expected, rel=1e-5)
    assert found[0] == found[2]
    assert torch.isfinite(found).all()


def test_a_library_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(everyday, "import_module", missing)
    with pytest.raises(ParetuneError, match=r"pip install 'paretune\[smollm2\]'"):
        Positivity()


@pytest.mark.parametrize("part", ["train", "test"])
def test_the_sets_of_questions_are_whole_and_their_instructions_can_be_checked(part: str) -> None:
    plain, told = load_prompts(f"everyday/{part}"), load_prompts(f"everyday/instructions-{part}")
    assert len(plain) == len(told) == {"train": 235, "test": 78}[part]
    assert all(b.text.startswith(a.text) for a, b in zip(plain, told, strict=True))
    Instructions.check(told)
    assert len({p.text for p in plain}) == len(plain)


def test_held_out_questions_are_not_trained_on() -> None:
    train, test = ({p.text for p in load_prompts(f"everyday/{part}")} for part in ("train", "test"))
    assert not train & test
