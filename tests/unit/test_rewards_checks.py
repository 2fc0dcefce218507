"""Which prompts a reward can score, told before it has to: `check` and `applies` of every reward."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from paretune.data.prompts import load_prompts
from paretune.rewards.base import REWARDS, applies_to, find_reward, load_reward, score_samples
from paretune.rewards.checks import first_refused, refusal
from paretune.rewards.photo.geneval_rules import Found, is_correct, partial_score
from paretune.rewards.worlds.detector import Detection
from paretune.rewards.worlds.geneval import score_record
from paretune.types import ParetuneError, Prompt

INCLUDE = [{"class": "circle", "count": 1}]
MOVE = {"shape": "square", "color": "green", "direction": "right", "speed": "slowly"}
ASKS = {"verb": "ship", "thing": "bag", "kind": "steps", "harm": False}
CHECKS = {"checks": [{"kind": "lowercase"}]}
RULES = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{"num_words": None}]}
# reward -> a record that it scores, and records that it does not
RECORDS: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "pictures.geneval": (
        {"include": INCLUDE},
        [{}, {"include": []}, {"include": None}, {"include": [{"count": 1}]}, {"include": "circle"},
         {"include": ["circle"]}],
    ),
    "pictures.geneval_strict": (
        {"include": INCLUDE, "exclude": None},
        [{"include": [{"class": "circle"}]}, {"include": INCLUDE, "exclude": [{}]}],
    ),
    "likeness": ({"image": "a.png"}, [{}, {"image": 3}]),
    "instructions": (CHECKS, [{}, {"checks": []}, {"checks": [{"kind": "rhymes"}]}]),
    "ifeval": (RULES, [{}, RULES | {"kwargs": []}, RULES | {"instruction_id_list": ["rhymes"]}]),
    "geneval": ({"include": INCLUDE}, [{}, {"include": [{"class": 3, "count": 1}]}]),
    "pictures.ocr": ({"text": "drum"}, [{}, {"text": None}, {"text": ""}, {"text": " "}, {"text": 5}]),
    "pictures.rapidocr": ({"text": "drum"}, [{}, {"text": ["drum"]}]),
    "ocr": ({"text": "a b"}, [{}, {"text": "  "}, {"text": 7}]),
    "pictures.contrast": (
        {"text": "drum", "include": None},
        [{}, {"include": []}, {"include": [{}]}, {"include": INCLUDE, "text": 5}],
    ),
    "pictures.prominence": ({"include": INCLUDE}, [{}, {"text": "drum"}]),
    "clips.video_quality": (MOVE, [{}, MOVE | {"color": "pink"}, MOVE | {"shape": None}]),
    "clips.visual_judge": (MOVE, [{}, MOVE | {"shape": "star"}]),
    "clips.motion_quality": (MOVE, [{}, MOVE | {"direction": "away"}]),
    "clips.motion_judge": (MOVE, [{}, MOVE | {"speed": 3}]),
    "assistant.helpful_rules": (
        ASKS, [{}, ASKS | {"verb": "sing"}, ASKS | {"kind": "song"}, ASKS | {"thing": None}]
    ),
    "assistant.harmless_rules": (ASKS, [{}, {k: v for k, v in ASKS.items() if k != "harm"}]),
}  # fmt: skip
ANY = {"pictures.preference", "pictures.preference_judge", "pictures.vqa", "pickscore", "text_model",
       "length", "repetition", "positivity", "reading_ease", "brevity", "distinct", "clean",
       "perplexity", "vbench_flicker"}  # fmt: skip
PHOTO = {"hpsv2", "clipscore", "aesthetic", "imagereward", "mps", "hpsv3", "vqascore", "unified_reward",
         "diversity", "geneval2", "deqa"}  # fmt: skip
ANY |= PHOTO
# Those that load a network or ask a server for any prompt. VideoAlign's check asks for no record.
NETWORKS = PHOTO | {
    "pickscore", "text_model", "perplexity", "videoalign", "vbench_subject", "vbench_background",
    "vbench_dynamic", "skywork", "armorm", "guard", "remote",
    "vlm_judge",
}  # fmt: skip


def test_every_reward_is_here() -> None:
    assert set(RECORDS) | ANY | NETWORKS == set(REWARDS)


@pytest.mark.parametrize("name", RECORDS)
def test_a_check_passes_what_can_be_scored_and_names_what_cannot(name: str) -> None:
    """Asked of the class: `plan` loads no network."""
    good, bad = RECORDS[name]
    check = find_reward(name).check
    assert first_refused(check, [Prompt("well", good)] * 2) is None
    for record in bad:
        where, why = first_refused(check, [Prompt("well", good), Prompt("ill", record)]) or (0, "")
        assert where == 1
        assert "'ill'" in why


@pytest.mark.parametrize("name", sorted(set(RECORDS) - {"geneval", "likeness"}))
def test_a_reward_applies_to_what_it_can_score_alone(name: str) -> None:
    good, bad = RECORDS[name]
    reward = load_reward(name)
    assert applies_to(reward, Prompt("well", good))
    assert [applies_to(reward, Prompt("ill", record)) for record in bad] == [False] * len(bad)
    shape = (1, 8, 3, 32, 32) if good is MOVE else (1, 3, 32, 32)
    samples = ["1. pack the bag."] if good in (ASKS, CHECKS, RULES) else torch.rand(shape)
    assert score_samples(reward, samples, [Prompt("well", good)]).shape == (1,)


@pytest.mark.parametrize("name", sorted(ANY - NETWORKS))
def test_the_others_apply_to_every_prompt(name: str) -> None:
    assert applies_to(load_reward(name), Prompt("words alone"))


@pytest.mark.parametrize(
    ("name", "rewards"),
    [("pictures/geneval", ("pictures.geneval", "pictures.geneval_strict", "pictures.contrast",
                           "pictures.prominence", "geneval")),
     ("pictures/ocr", ("pictures.ocr", "pictures.rapidocr", "ocr", "pictures.contrast")),
     ("clips/motion", ("clips.motion_quality", "clips.motion_judge", "clips.video_quality",
                       "clips.visual_judge")),
     ("assistant/helpful", ("assistant.helpful_rules", "assistant.harmless_rules"))],
)  # fmt: skip
def test_the_embedded_sets_pass(name: str, rewards: tuple[str, ...]) -> None:
    for part in ("train", "test"):
        for reward in rewards:
            assert first_refused(find_reward(reward).check, load_prompts(f"{name}-{part}")) is None


def test_quoted_words_are_what_scene_ocr_reads() -> None:
    check = find_reward("ocr").check
    assert first_refused(check, [Prompt('a sign that says "hello"'), Prompt("a sign “drum”")]) is None
    assert first_refused(check, [Prompt('a "word"'), Prompt("a sign that says hello")]) is not None


# ---------------------------------------------------------------- a user's reward


class Odd:
    name, range, higher_is_better = "odd", (0.0, 1.0), True

    def score(self, samples: Any, prompts: Any) -> list[float]:
        return [0.0] * len(prompts)

    def check(self, prompts: Any) -> None:
        if len(prompts) == 3:
            raise ValueError("three are\ntoo many")
        if prompts[0].text == "odd":
            raise KeyError("odd one")


def test_a_users_check_may_raise_what_it_likes() -> None:
    reward: Any = Odd()
    assert refusal(reward, Prompt("odd")) == "KeyError: 'odd one'"
    assert refusal(reward, Prompt("even")) is None
    assert not applies_to(reward, Prompt("odd"))
    assert first_refused(reward.check, [Prompt("even")] * 3) == (None, "ValueError: three are")


def test_an_applies_that_says_no_has_its_reason() -> None:
    reward: Any = Odd()
    reward.applies = lambda prompt: prompt.text != "no"
    assert refusal(reward, Prompt("no")) == "its record lacks what the reward needs"


# ---------------------------------------------------------------- nulls in GenEval's records

# As a dataset's columns have them: every key in every entry, nulls where GenEval's files have none.
NULLS = {"color": None, "position": None}
HUB = [
    ({"tag": "counting", "include": [{"class": "dog", "count": 2, **NULLS}],
      "exclude": [{"class": "dog", "count": 3, **NULLS}]}, ["dog", "dog"]),
    ({"tag": "colors", "include": [{"class": "dog", "count": 1, "color": "red", "position": None}],
      "exclude": None, "text": None}, ["dog"]),
    ({"tag": "position", "exclude": None, "include": [
        {"class": "dog", "count": 1, **NULLS},
        {"class": "cat", "count": 1.0, "color": math.nan, "position": ["right of", "0"]}]}, ["dog", "cat"]),
]  # fmt: skip


@pytest.mark.parametrize(("record", "shown"), HUB)
def test_a_perfect_picture_of_a_record_with_nulls_scores_1(record: dict[str, Any], shown: list[str]) -> None:
    before = json.dumps(record)
    found = [Found(n, 0.99, (30.0 * i, 0.0, 30.0 * i + 10, 10.0), "red") for i, n in enumerate(shown)]
    assert (partial_score(record, found), is_correct(record, found)) == (1.0, True)
    assert is_correct(record, []) is False
    here = [Detection(n, "red", 4 + 20.0 * i, 8, 60) for i, n in enumerate(shown)]
    assert (score_record(record, here), score_record(record, here, strict=True)) == (1.0, 1.0)
    assert first_refused(find_reward("geneval").check, [Prompt("a photo", record)]) is None
    assert json.dumps(record) == before


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"class": "dog", "count": None}, "asks for None of 'dog' in 'include': a count from 1 up is needed"),
        ({"class": "dog", "count": 0}, "asks for 0 of 'dog'"),
        ({"class": "dog", "count": 1.5}, "asks for 1.5 of 'dog'"),
        ({"class": "dog", "count": 1, "color": 3}, "a color of 'dog' that is no text"),
        ({"class": "dog", "count": 1, "position": ["near", 0]}, "not [relation, index of another entry]"),
        ({"class": "dog", "count": 1, "position": ["above", 4]}, "not [relation, index of another entry]"),
        ({"class": "dog", "count": 1, "position": ["above", 0]}, "not [relation, index of another entry]"),
        ({"class": "dog", "count": 1, "position": "above"}, "not [relation, index of another entry]"),
    ],
)
def test_a_record_that_cannot_be_scored_says_why(entry: dict[str, Any], told: str) -> None:
    with pytest.raises(ParetuneError) as caught:
        find_reward("geneval").check([Prompt("a photo", {"include": [entry]})])
    assert told in str(caught.value)


@pytest.mark.parametrize("name", ["geneval", "geneval_strict", "contrast", "prominence"])
@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"class": "dog", "count": 1}, "knows no 'dog', which the prompt 'a photo' asks about; use circle, "),
        ({"class": "circle", "count": 1, "color": "mauve"}, "knows no 'mauve', .* use red, green, blue, "),
    ],
)
def test_what_the_detector_never_finds_is_reported_before_training(
    name: str, entry: dict[str, Any], told: str
) -> None:
    for record in ({"include": [entry]}, {"include": INCLUDE, "exclude": [entry]}):
        with pytest.raises(ParetuneError, match=told):
            find_reward(f"pictures.{name}").check([Prompt("a photo", record)])
