"""The page of a run that edits pictures: a picture beside the prompt, checked, and part of the answer."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from paretune.demo import serving
from paretune.demo.answers import Answers
from paretune.types import ParetuneError
from tests.families import cases, write_picture
from tests.made_run import make_run

from .browsing import needs_chromium, served, visits

CASE = cases()["flux_kontext"]
EVEN = (0.5, 0.5)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    pipeline = CASE.make(folder / "kontext")
    return make_run(folder / "edits", pipeline, pictures=CASE.pictures, model=dict(CASE.model))


@pytest.fixture(scope="module")
def answers(run: Path) -> Answers:
    return serving.open_answers(run, trust_rewards=True)


def _uri(size: tuple[int, int], color: str, kind: str = "png") -> str:
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, kind.upper())
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _shown(html: str) -> list[str]:
    return [part.partition('"')[0] for part in html.split('<img class="pt-pixels" src="')[1:]]


def test_a_chosen_picture_and_that_of_the_runs_prompt_are_seen(answers: Answers) -> None:
    own = _shown(answers.answer("a red circle", EVEN, "mapreduce", "", 1).samples)
    red = _shown(answers.answer("a red circle", EVEN, "mapreduce", "", 1, _uri((16, 20), "red")).samples)
    blue = _shown(answers.answer("a red circle", EVEN, "mapreduce", "", 1, _uri((16, 20), "blue")).samples)
    assert [len(shown) for shown in (own, red, blue)] == [3, 3, 3]  # base, aligned, and the input
    assert len({own[0], red[0], blue[0]}) == 3
    with Image.open(io.BytesIO(base64.b64decode(blue[2].partition(",")[2]))) as seen:
        assert (seen.size, seen.getpixel((0, 0))) == ((16, 20), (0, 0, 255))


@pytest.mark.parametrize(
    ("image", "told"),
    [
        ("", "works on an input picture: choose one"),
        (7, "the input picture must be a text, not 7"),
        ("no picture", "the input picture cannot be read: choose a PNG, JPEG or WebP file"),
        ("data:image/png;base64,AAAA", "the input picture cannot be read: choose a PNG"),
        (_uri((64, 64), "red")[:120], "the input picture cannot be read: choose a PNG"),
        ("file:///etc/passwd", "the input picture cannot be read: choose a PNG"),
        ("x" * (1 << 20) + "x", "the input picture has 1,048,577 characters"),
        (_uri((4, 1025), "red"), "the input picture has more than 1024 pixels a side"),
        (_uri((3, 3), "red"), "has 3x3 pixels; 4x4 are the least"),
    ],
)
def test_every_wrong_picture_is_one_line(answers: Answers, image: Any, told: str) -> None:
    with pytest.raises(ParetuneError, match=told) as caught:
        answers.answer("make it blue", EVEN, "mapreduce", "", 1, image)
    assert "\n" not in str(caught.value)


def test_only_the_last_pictures_are_kept(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paretune.demo.inputs.KEPT", 2)
    places = [Path(answers.inputs.keep(_uri((4, 4), color))) for color in ("red", "blue", "red", "green")]
    assert [place.exists() for place in places] == [True, False, True, True]


def test_pictures_of_an_untrusted_run_are_used_only_if_it_measured_them(run: Path) -> None:
    untrusted = serving.open_answers(run)
    with pytest.raises(ParetuneError, match="not the one that was measured: choose one"):
        untrusted.answer("a red circle", EVEN, "mapreduce", "", 1)
    assert untrusted.answer("a red circle", EVEN, "mapreduce", "", 1, _uri((16, 16), "red")).samples


@pytest.fixture(scope="module")
def address(run: Path) -> Iterator[str]:
    with served(run) as url:
        yield url


@needs_chromium
def test_a_visitor_chooses_a_picture(browser: Any, address: str, tmp_path: Path) -> None:
    write_picture(tmp_path / "small.png", (16, 12), seed=3)
    with visits(browser, address, "#pt-samples img") as visit:
        page = visit()
        before = page.eval_on_selector_all("#pt-samples img", "all => all.map(one => one.src)")
        page.set_input_files("#pt-picker input", str(tmp_path / "small.png"))
        page.wait_for_function(
            "before => document.querySelectorAll('#pt-samples img')[0].src !== before", arg=before[0]
        )
        page.wait_for_selector("#pt-picker img")
        assert page.locator("#pt-message [role=alert]").count() == 0
        page.click("#pt-picker button")
        page.wait_for_function(
            "before => document.querySelectorAll('#pt-samples img')[0].src === before", arg=before[0]
        )
        assert page.locator("#pt-picker img").count() == 0


@needs_chromium
def test_a_large_picture_is_shrunk_in_the_browser(browser: Any, address: str, tmp_path: Path) -> None:
    """Its answer is not waited for: the tiny model's tokens are so small that it has too many of them."""
    write_picture(tmp_path / "large.png", (1500, 900), seed=3)
    with visits(browser, address, "#pt-samples img") as visit:
        page = visit()
        page.set_input_files("#pt-picker input", str(tmp_path / "large.png"))
        page.wait_for_selector("#pt-picker img")
        sides = page.eval_on_selector(
            "#pt-picker img", "one => one.decode().then(() => [one.naturalWidth, one.naturalHeight])"
        )
        assert sides == [1024, 614]
