"""GenEval's rules on stored detections, and their verdicts by the official script.

geneval_detections.jsonl holds made-up detections, a case a line, that touch every rule and every tag. Its
`correct` is what `evaluate_image` of the official evaluation/evaluate_images.py (github djghosh13/geneval,
commit af4902f) said about them, with its detector and its colour classifier replaced by the stored boxes,
scores and colour chances.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from paretune.rewards.photo.geneval_rules import (
    Found,
    is_correct,
    kept,
    overlap_of,
    surest_color,
    threshold_of,
    verdict,
)
from paretune.rewards.records import RELATIONS

CASES = [
    json.loads(line)
    for line in Path(__file__).with_name("geneval_detections.jsonl").read_text().splitlines()
]
TAGS = {"single_object", "two_object", "counting", "colors", "position", "color_attr"}


def objects(case: dict[str, Any]) -> list[Found]:
    """The stored objects that count."""
    found = [
        Found(
            item["class"], item["score"], tuple(item["box"]),
            surest_color(item["chances"]) if "chances" in item else None,
        )
        for item in case["found"]
    ]  # fmt: skip
    return kept(found, threshold_of(case["record"]), case["overlap"])


@pytest.mark.parametrize("case", CASES, ids=[case["case"] for case in CASES])
def test_the_verdict_is_the_official_scripts(case: dict[str, Any]) -> None:
    told = verdict(case["record"], objects(case))
    assert told.correct is case["correct"]
    assert bool(told.reasons) is not told.correct


def test_the_cases_touch_every_tag_and_relation() -> None:
    for tag in TAGS:
        assert {c["correct"] for c in CASES if c["record"]["tag"] == tag} == {True, False}
    asked = {e["position"][0] for c in CASES for e in c["record"]["include"] if "position" in e}
    assert asked == set(RELATIONS)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("one of two", "1 cat expected, 0 found"),
        ("blue for red", "1 dog in red expected, 0 found"),
        ("left of, asked above", "1 dog above entry 0 expected, which does not hold"),
        ("four for three", "fewer than 4 dog expected, 4 found"),
    ],
)
def test_a_verdict_says_what_is_wrong(case: str, reason: str) -> None:
    stored = next(c for c in CASES if c["case"] == case)
    assert verdict(stored["record"], objects(stored)).reasons == (reason,)
    assert not is_correct(stored["record"], objects(stored))


def test_thresholds_and_overlap() -> None:
    assert (threshold_of({"tag": "counting"}), threshold_of({"tag": "colors"}), threshold_of({})) == (
        0.9, 0.3, 0.3,
    )  # fmt: skip
    # compute_iou counts both ends of a side: 11 x 11, 11 x 11 and 6 x 11 pixels
    assert overlap_of((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(66 / (121 + 121 - 66))
    assert overlap_of((0, 0, 1, 1), (9, 9, 10, 10)) == 0
