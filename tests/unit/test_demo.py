"""The page without a browser: the front, where a setting lies on it, answers, what is shown of words."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from paretune.demo import markup, serving, views
from paretune.demo.answers import Answer, Answers
from paretune.demo.front import Front, Place, Point, read_front
from paretune.demo.plots import front_plots
from paretune.files import read_json, write_json
from paretune.types import ParetuneError
from tests.made_run import make_run, make_tokens

WEIGHTS = {"red": 0.5, "dark": 0.5}


@pytest.fixture(scope="module")
def run(tiny_sd3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("made") / "run", tiny_sd3)


@pytest.fixture(scope="module")
def answers(run: Path) -> Answers:
    return serving.open_answers(run, trust_rewards=True)


# ---------------------------------------------------------------- the front


def test_the_points_are_those_of_the_summary_and_the_grid(run: Path) -> None:
    front = read_front(run, WEIGHTS)
    points = {p.name: p for p in front.points}
    assert set(points) == {"base", "expert:red", "expert:dark", "rewarded_soup", "mapreduce",
                           "mapreduce at another preference"}  # fmt: skip
    assert points["base"].drawn_by is None
    assert (points["expert:dark"].drawn_by, points["expert:dark"].preference) == ("mix", (0.0, 1.0))
    assert points["mapreduce"].values == (0.6, 0.7)
    grid = [p for p in front.points if p.name.endswith("preference")]
    assert [(p.preference, p.values) for p in grid] == [
        ((1.0, 0.0), pytest.approx((0.9, 0.1))), ((0.0, 1.0), pytest.approx((0.1, 0.9)))
    ]  # fmt: skip
    assert [p.name for p in front.points if not p.best] == ["base", "rewarded_soup"]


def test_a_cost_is_better_when_it_is_less(run: Path, tmp_path: Path) -> None:
    summary = read_json(run / "summary.json")
    summary["higher_is_better"]["dark"] = False
    write_json(tmp_path / "summary.json", summary)
    front = read_front(tmp_path, WEIGHTS)
    # base (.2, .3): expert:red (.8, .2) beats it in both.
    assert [p.name for p in front.points if p.best] == ["expert:red"]


def test_a_measured_setting_is_its_point_and_another_lies_between(run: Path) -> None:
    front = read_front(run, WEIGHTS)
    even = front.place("mapreduce", (0.5, 0.5))
    assert even is not None
    assert (even.values, even.measured) == ((0.6, 0.7), True)
    between = front.place("mapreduce", (0.75, 0.25))
    assert between is not None
    assert between.values == pytest.approx(((0.6 + 0.9) / 2, (0.7 + 0.1) / 2))
    assert not between.measured
    assert front.place("rate", (0.5, 0.5)) is None


def test_between_three_rewards_values_are_linear() -> None:
    ones = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]
    corners = [Point(f"p{i}", "mix", one, (10.0 * i,) * 3) for i, one in enumerate(ones)]
    front = Front(("a", "b", "c"), (True,) * 3, tuple(corners))
    place = front.place("mix", (0.2, 0.3, 0.5))
    assert place is not None
    assert place.values == pytest.approx((13.0,) * 3)
    alone = Front(("a", "b", "c"), (True,) * 3, (corners[1],)).place("mix", (0.2, 0.3, 0.5))
    assert alone == Place((10.0,) * 3, 0, False)


def test_every_point_is_on_every_plot_and_those_that_can_be_drawn_are_buttons(run: Path) -> None:
    front = read_front(run, WEIGHTS)
    drawn = front_plots(front, front.place("mix", (0.5, 0.5)), "mix")
    assert len(re.findall('data-point="', drawn)) == 6
    assert drawn.count('role="img"') == 1
    assert drawn.count('<circle class="pt-here"') == 2  # the plot's and the legend's
    assert "was measured (rewarded soup): red 0.50, dark 0.60" in drawn
    assert "measured no point of rate" in front_plots(front, None, "rate")
    assert "tokens beside it this setting was not measured" in front_plots(front, None, "mix", True)
    assert "nothing to trade" in front_plots(Front(("a",), (True,), ()), None, "mix")


def test_other_rewards_than_the_recipes_are_refused(run: Path) -> None:
    with pytest.raises(ParetuneError, match="names other rewards"):
        read_front(run, {"red": 1.0})


# ---------------------------------------------------------------- answers


def test_the_aligned_picture_follows_the_preference_and_the_base_does_not(answers: Answers) -> None:
    one, other = (answers.answer("a red circle", w, "mix", "", 1) for w in ([1.0, 0.0], [0.0, 3.0]))
    images = [re.findall(r'src="data:image/png;base64,([^"]+)"', a.samples) for a in (one, other)]
    assert images[0][1] != images[1][1]
    kept = [re.findall(r'class="pt-bar pt-base".*?pt-value">([^<]+)<', a.bars) for a in (one, other)]
    assert kept[0] == kept[1]


def test_a_wrong_setting_is_one_line(answers: Answers) -> None:
    wrong = {
        "empty": ("", [1, 1], "mix", "", 0),
        "10,000 characters": ("x" * 10_000, [1, 1], "mix", "", 0),
        "control character": ("a\x00b", [1, 1], "mix", "", 0),
        "weight of 'red' is nan": ("a", [math.nan, 1], "mix", "", 0),
        "weight of 'dark' is nan": ("a", [1, None], "mix", "", 0),
        "all zero": ("a", [0, 0], "mix", "", 0),
        "1 weights for": ("a", [1], "mix", "", 0),
        "no method base": ("a", [1, 1], "base", "", 0),
        "unknown method": ("a", [1, 1], "<b>", "", 0),
        "no reward tokens": ("a", [1, 1], "mix", "ocr@nan", 0),
        "whole number": ("a", [1, 1], "mix", "", None),
    }
    for told, asked in wrong.items():
        with pytest.raises(ParetuneError, match=told) as raised:
            answers.answer(*asked)  # type: ignore[arg-type]
        assert "\n" not in str(raised.value)


def test_at_the_recipes_weights_the_merged_model_is_drawn(answers: Answers) -> None:
    """It is what was measured: with another reducer than `exact` the average is another model."""
    told = [_settings(answers.answer("a red circle", w, "mapreduce", "", 1)) for w in ([1, 1], [1, 0])]
    assert [t["preference"] for t in told] == [None, {"red": 1.0, "dark": 0.0}]
    assert [a["folder"] for a in told[0]["adapters"]] == ["final"]
    assert _settings(answers.answer("a red circle", [1, 1], "mix", "", 1))["preference"] is not None


def _settings(answer: Answer) -> dict[str, Any]:
    """What the aligned picture says it was made from."""
    data = re.findall(r'src="data:image/png;base64,([^"]+)"', answer.samples)[1]
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return json.loads(image.info["paretune"])


def test_tokens_beside_a_method_are_reported_and_refused_with_rate(tiny_sd3: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", tiny_sd3)
    make_tokens(run, tiny_sd3)
    answers = serving.open_answers(run, trust_rewards=True)
    assert "measured no point" not in answers.answer("a red circle", [1, 1], "mapreduce", "red", 1).front
    assert "measured no point of rate" in answers.answer("a red circle", [1, 1], "rate", "", 1).front
    with pytest.raises(ParetuneError, match="from the preference or by name"):
        answers.answer("a red circle", [1, 1], "rate", "red", 1)


def test_a_point_tells_its_setting(answers: Answers) -> None:
    names = [p.name for p in answers.front.points]
    assert answers.point(names.index("expert:dark")) == ("mix", (0.0, 1.0))
    for number in (names.index("base"), -1, len(names)):
        with pytest.raises(ParetuneError):
            answers.point(number)


def test_examples_are_held_out_prompts(answers: Answers) -> None:
    assert answers.examples() == ["a red circle", "two blue squares", "a sign saying kite"]


# ---------------------------------------------------------------- words


def test_markup_and_templates_are_text() -> None:
    drawn = views.clip(b"", "base", '<script>"{{a}} ${b}`\\', "x.mp4")
    assert '&lt;script&gt;&quot;&#123;&#123;a&#125;&#125; &#36;&#123;b&#125;&#96;&#92;"' in drawn
    assert markup.message("") == ""


def test_a_bar_never_leaves_its_track() -> None:
    drawn = markup.bars(["a"], {"a": (0.0, 1.0)}, {"base": {"a": -3.0}, "aligned": {"a": 7.0}}, {})
    assert re.findall(r"width:([\d.]+)%", drawn) == ["0.0", "100.0"]
    assert re.findall(r'pt-value">([^<]+)', drawn) == ["-3.000", "7.000"]
    assert "no score: why" in markup.bars(["a"], {"a": (0.0, 1.0)}, {}, {"a": "why"})


# ---------------------------------------------------------------- serving


def test_without_gradio_one_line_says_what_to_install(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "find_spec", lambda _: None)
    with pytest.raises(ParetuneError, match=r"pip install 'paretune\[demo\]'"):
        serving.serve(run)


def test_what_cannot_be_served_is_refused(run: Path, tiny_sd3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "find_spec", lambda _: object())
    with pytest.raises(ParetuneError, match="--port must be"):
        serving.serve(run, port=0)
    with pytest.raises(ParetuneError, match="is a model, not a run"):
        serving.open_answers(tiny_sd3)
