"""The page of runs that write texts or make clips, in a real browser; test_demo has what all pages share."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from paretune.recipes import load_config
from paretune.rewards.base import load_reward
from paretune.types import Prompt
from tests.language import WORDS, make_llama
from tests.made_run import make_clips_run, make_run, make_texts_run

from .browsing import needs_chromium, served, slider, visits

pytestmark = needs_chromium
# Words of the language model's own: its answers are full of them.
MARKUP = ("<img/src=x/onerror=alert(1)>", "<b>", "</div>", "{{1+1}}", "${2+2}", "<script>alert(2)</script>")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    return make_texts_run(folder / "run", make_llama(folder / "model", words=(*WORDS, *MARKUP)))


@pytest.fixture(scope="module")
def address(texts: Path) -> Iterator[str]:
    with served(texts) as url:
        yield url


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    with visits(browser, address, "#pt-samples .pt-words") as open_page:
        yield open_page


def answers(page: Any) -> list[str]:
    """The base's and the aligned answer, as they are read."""
    return page.eval_on_selector_all("#pt-samples .pt-words", "all => all.map(one => one.textContent)")


def after(page: Any, act: Callable[[], object]) -> list[str]:
    """The answers once the aligned one has changed."""
    before = answers(page)[1]
    act()
    page.wait_for_function(
        "before => { const all = document.querySelectorAll('#pt-samples .pt-words');"
        " return all.length === 2 && all[1].textContent !== before; }", arg=before,
    )  # fmt: skip
    return answers(page)


def test_two_answers_follow_prompt_and_sliders(visit: Callable[..., Any], texts: Path) -> None:
    page = visit()

    def ask() -> None:
        page.fill("#pt-prompt textarea, #pt-prompt input", "fix the table")
        page.fill("#pt-seed input", "4")
        page.click("#pt-generate")

    after(page, ask)
    page.wait_for_selector("#pt-samples a[download='aligned-4.txt']")
    drawn = answers(page)
    saved = page.eval_on_selector_all("#pt-samples a", "links => links.map(link => link.href)")
    files = [base64.b64decode(unquote(link).partition("base64,")[2]).decode() for link in saved]
    assert files == drawn
    shown = page.eval_on_selector_all("#pt-bars .pt-value", "values => values.map(v => v.textContent)")
    rewards = [load_reward(own.reward) for own in load_config(texts / "config.yaml").rewards.values()]
    assert shown == [f"{v:.3f}" for r in rewards for v in r.score(files, [Prompt("fix the table")] * 2)]
    assert "Scores of these two answers" in page.text_content("#pt-bars")
    slider(page, 0).focus()
    assert after(page, lambda: page.keyboard.press("Home"))[0] == drawn[0]  # the base keeps its answer
    page.wait_for_function("document.querySelector('#pt-front .pt-here')")


def test_markup_in_answers_and_prompts_is_text(visit: Callable[..., Any]) -> None:
    page = visit()
    for seed in range(1, 40):
        page.fill("#pt-seed input", str(seed))
        page.fill("#pt-prompt textarea, #pt-prompt input", MARKUP[0])
        page.click("#pt-generate")
        page.wait_for_selector(f"#pt-samples a[download='aligned-{seed}.txt']")
        if sum(word in "".join(answers(page)) for word in MARKUP) >= 2:
            break
    else:
        pytest.fail("no answer held markup")
    assert page.locator("#pt-samples .pt-words").count() == 2
    assert page.locator("#pt-samples .pt-words *").count() == 0
    assert page.locator("#pt-samples :is(img, script, b b)").count() == 0


def test_bad_prompts_are_reported_and_the_server_lives(visit: Callable[..., Any]) -> None:
    page = visit()
    before = answers(page)
    field = page.locator("#pt-prompt textarea, #pt-prompt input")
    wrong = {
        "  ": "empty", "day " * 40: "has 40 tokens", "x" * 300_000: "300,000 characters",
        "a\u0007b": "U+0007",
    }  # fmt: skip
    for text, reason in wrong.items():
        field.fill(text)
        page.click("#pt-generate")
        page.wait_for_function(
            "text => document.querySelector('#pt-message [role=alert]')?.textContent.includes(text)",
            arg=reason,
        )
    assert answers(page) == before
    field.fill("tell me\nplease")  # several lines are one prompt
    after(page, lambda: page.click("#pt-generate"))
    assert page.locator("#pt-message [role=alert]").count() == 0


def test_answers_fit_a_phone(visit: Callable[..., Any]) -> None:
    page = visit(width=400)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    boxes = page.eval_on_selector_all("#pt-samples .pt-words", "all => all.map(one => one.clientWidth)")
    assert all(width > 300 for width in boxes)


def test_two_clips_play_and_follow_the_sliders(browser: Any, tiny_hunyuan: Path, tmp_path: Path) -> None:
    run = make_clips_run(tmp_path / "clips", tiny_hunyuan)
    with served(run) as address, visits(browser, address, "#pt-samples video") as open_page:
        page = open_page()
        playing = (
            "() => { const all = [...document.querySelectorAll('#pt-samples video')];"
            " return all.length === 2 && all.every(v => v.readyState >= 2 && v.videoWidth === 128 && !v.error"
            " && v.currentTime > 0); }"
        )  # fmt: skip
        page.wait_for_function(playing)
        sources = "videos => videos.map(video => video.src)"
        before = page.eval_on_selector_all("#pt-samples video", sources)
        slider(page, 0).focus()
        page.keyboard.press("Home")
        page.wait_for_function(
            "before => document.querySelectorAll('#pt-samples video')[1]?.src !== before", arg=before[1]
        )
        page.wait_for_function(playing)
        now = page.eval_on_selector_all("#pt-samples video", sources)
        assert now[0] == before[0]
        assert "Scores of these two clips" in page.text_content("#pt-bars")


def test_flux_pictures_follow_the_sliders(browser: Any, tiny_flux: Path, tmp_path: Path) -> None:
    model = {"height": 16, "width": 16, "options": {"max_sequence_length": 16}}
    run = make_run(tmp_path / "flux", tiny_flux, model=model)
    with served(run) as address, visits(browser, address, "#pt-samples img") as open_page:
        page = open_page()
        sources = "all => all.map(one => one.src)"
        page.wait_for_function("document.querySelectorAll('#pt-samples img').length === 2")
        before = page.eval_on_selector_all("#pt-samples img", sources)
        slider(page, 0).focus()
        page.keyboard.press("Home")
        page.wait_for_function(
            "before => document.querySelectorAll('#pt-samples img')[1]?.src !== before", arg=before[1]
        )
        now = page.eval_on_selector_all("#pt-samples img", sources)
        assert now[0] == before[0] != before[1]
        assert "Scores of these two pictures" in page.text_content("#pt-bars")
