"""Flow-GRPO's OCR reward: which text is wanted, and the score to the digit."""

import pytest
import torch

from paretune.rewards.photo.ocr import MissingTextError, SceneOcr, text_score, wanted_texts
from paretune.types import ParetuneError, Prompt


@pytest.mark.parametrize(
    ("read", "wanted", "score"),
    [
        ("hello", "hello", 1.0), ("ohhellothere", "hello", 1.0),
        ("helo", "hello", 4 / 5), ("he", "hello", 2 / 5), ("", "hello", 0.0),
        ("xyzxyzxyz", "hello", 0.0),  # no worse than nothing: d is at most n
        ("cafe", "café", 3 / 4), ("café", "café", 1.0),  # an accent counts
        ("营业中", "营业中", 1.0), ("营业", "营业中", 2 / 3),
        ("cafe\u0301", "caf\u00e9", 1 / 2),  # code points, not letters: two edits
        ("hello!", "hello?", 5 / 6), ("new\u3000york", "newyork", 6 / 7),
    ],
)  # fmt: skip
def test_the_score_is_flow_grpos(read: str, wanted: str, score: float) -> None:
    """flow_grpo/ocr.py: 1 - min(distance, n) / n, and a distance of 0 where the wanted text occurs."""
    assert text_score(read, wanted) == pytest.approx(score, abs=1e-12)


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ('a sign that says "Open"', ["open"]),
        ("a sign “Open”", ["open"]),
        ('a sign "New  York" by "me"', ["newyork", "me"]),
        ("“Un” et “Deux”", ["un", "deux"]),
        ('“left” and "right"', ["right"]),  # straight quotes are Flow-GRPO's own
        ('a sign "Open late', ["openlate"]),  # prompt.split('"')[1]
        ('a sign "a\tb"', ["a\tb"]),  # only blanks go
        ('写着"营业中"的牌子', ["营业中"]), ("招牌“ Café Zoë ”", ["cafézoë"]),
        ('it\'s a "x"', ["x"]), ('"" and "b"', ["b"]),
    ],
)  # fmt: skip
def test_the_wanted_texts_are_the_quoted(prompt: str, wanted: list[str]) -> None:
    assert wanted_texts(Prompt(prompt)) == wanted


def test_a_records_text_goes_first() -> None:
    assert wanted_texts(Prompt('a sign "a"', {"text": "B c"})) == ["bc"]
    assert wanted_texts(Prompt("a sign", {"text": ["B", "É d"]})) == ["b", "éd"]


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt("a red dog"), Prompt('a sign " "'), Prompt("a sign “”"), Prompt("it's 'Open'"),
        Prompt("a", {"text": ""}), Prompt("a", {"text": []}), Prompt("a", {"text": ["b", 1]}),
        Prompt('a sign "b"', {"text": 7}),
    ],
)  # fmt: skip
def test_a_prompt_without_a_text_is_one_line(prompt: Prompt) -> None:
    with pytest.raises(MissingTextError, match="ocr needs the wanted text") as told:
        SceneOcr.check([prompt])
    assert "\n" not in str(told.value)
    assert repr(prompt.text) in str(told.value)


def test_several_texts_are_scored_by_the_first_or_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paretune.rewards.photo.ocr._rapidocr", lambda *_: lambda picture: ["Hel", "l O  Ma"])
    prompts = [Prompt('"Hello" on "Mars"'), Prompt('"Venus"')]
    pictures = torch.zeros(2, 3, 8, 8)
    assert SceneOcr().score(pictures, prompts).tolist() == [1.0, 0.0]
    both = SceneOcr(targets="all").score(pictures, prompts).tolist()
    assert both == pytest.approx([(1 + 0) / 2, 0.0])  # "helloma" is further from "mars" than 4
    with pytest.raises(ParetuneError, match="targets is 'first' or 'all', not 'last'"):
        SceneOcr(targets="last")
