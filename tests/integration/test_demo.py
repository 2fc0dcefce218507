"""The page in a real browser: Debian's Chromium, driven by Playwright; `paretune demo` in its own process.

Without Chromium these tests are skipped: `apt-get install chromium` brings it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from paretune.commands.measure import score_folder
from paretune.recipes import load_config
from paretune.samples.stamped import read_settings
from tests.made_run import make_run, make_tokens

from .browsing import needs_chromium, served, slider, visits

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def run(tiny_sd3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("demo") / "tiny", tiny_sd3)
    make_tokens(folder, tiny_sd3)
    return folder


@pytest.fixture(scope="module")
def address(run: Path) -> Iterator[str]:
    with served(run) as url:
        yield url


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    with visits(browser, address, "#pt-samples img") as open_page:
        yield open_page


def pictures(page: Any) -> list[str]:
    """The sources of the base's and the aligned picture."""
    return page.eval_on_selector_all("#pt-samples img", "images => images.map(image => image.src)")


def after(page: Any, act: Callable[[], object]) -> list[str]:
    """The pictures once the aligned one has changed."""
    before = pictures(page)[1]
    act()
    page.wait_for_function(
        "before => { const all = document.querySelectorAll('#pt-samples img');"
        " return all.length === 2 && all[1].src !== before; }", arg=before,
    )  # fmt: skip
    return pictures(page)


def save(sources: list[str], folder: Path) -> list[dict[str, Any]]:
    """Write the pictures as files; returns the settings that they carry."""
    folder.mkdir()
    told = []
    for number, source in enumerate(sources):
        data = base64.b64decode(source.removeprefix("data:image/png;base64,"))
        (folder / f"{number}.png").write_bytes(data)
        assert Image.open(io.BytesIO(data)).size == (16, 16)
        told.append(read_settings(folder / f"{number}.png"))
    return told


def test_a_typed_prompt_is_drawn_and_scored_as_the_commands_do(
    visit: Callable[..., Any], run: Path, tmp_path: Path
) -> None:
    page = visit()

    def type_prompt() -> None:
        page.fill("#pt-prompt textarea, #pt-prompt input", "two blue squares")
        page.click("#pt-generate")

    told = save(after(page, type_prompt), tmp_path / "saved")
    assert [(t["prompt"], t["method"], t["seed"]) for t in told] == [
        ("two blue squares", "base", 0), ("two blue squares", "mapreduce", 0)
    ]  # fmt: skip
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("two blue squares\ntwo blue squares\n")
    shown = page.eval_on_selector_all("#pt-bars .pt-value", "values => values.map(v => v.textContent)")
    scored = [
        f"{row['value']:.3f}"
        for own in load_config(run / "config.yaml").rewards.values()
        for row in score_folder(own.reward, tmp_path / "saved", str(prompts))
    ]
    assert shown == scored


def test_a_slider_moved_by_keys_changes_the_aligned_picture_alone(
    visit: Callable[..., Any], tmp_path: Path
) -> None:
    page = visit()
    base = pictures(page)[0]
    slider(page, 0).focus()
    sources = after(page, lambda: page.keyboard.press("End"))
    page.wait_for_function("document.querySelector('#pt-front').textContent.includes('was not measured')")
    assert sources[0] == base
    preference = save(pictures(page), tmp_path / "saved")[1]["preference"]
    assert preference == pytest.approx({"red": 2 / 3, "dark": 1 / 3})


def test_a_point_of_the_front_sets_the_sliders(visit: Callable[..., Any]) -> None:
    page = visit()
    page.fill("#pt-tokens textarea, #pt-tokens input", "red")
    after(page, lambda: page.locator("#pt-front [aria-label*='expert dark']").first.click())
    assert [float(slider(page, i).input_value()) for i in (0, 1)] == [0, 1]
    assert page.is_checked("#pt-method input[value=mix]")
    assert page.input_value("#pt-tokens textarea, #pt-tokens input") == ""
    told = "document.querySelector('#pt-front').textContent.includes('measured (expert dark)')"
    page.wait_for_function(told)
    point = page.locator("#pt-front [aria-label*='expert red']").first
    point.focus()
    after(page, lambda: page.keyboard.press("Enter"))
    assert [float(slider(page, i).input_value()) for i in (0, 1)] == [1, 0]


def test_a_slow_answer_never_overwrites_that_of_a_later_question(
    visit: Callable[..., Any], run: Path
) -> None:
    page = visit()
    point = page.locator("#pt-front [aria-label*='expert dark']").first
    kept = after(page, point.click)  # from here on answered at once
    page.check("#pt-method input[value=mapreduce]")
    page.wait_for_function("!document.querySelector('#pt-front').textContent.includes('expert dark)')")
    page.evaluate(
        "() => { window.told = []; const now = () => document.querySelector('#pt-front')?.textContent ?? '';"
        " new MutationObserver(() => window.told.push(now()))"
        ".observe(document.body, { childList: true, characterData: true, subtree: true }); }"
    )
    slow = run.parent / "tiny-recipe" / "slow"
    slow.touch()
    try:
        slider(page, 0).focus()
        page.keyboard.press("PageUp")  # to what nothing has asked yet
        page.wait_for_timeout(300)
        point.click()
        page.wait_for_function("window.told.some(text => text.includes('was not measured'))")
    finally:
        slow.unlink()
    told = "window.told.at(-1).includes('measured (expert dark)')"
    page.wait_for_function(told)
    assert pictures(page) == kept
    assert [float(slider(page, i).input_value()) for i in (0, 1)] == [0, 1]


def test_the_keyboard_reaches_everything(visit: Callable[..., Any]) -> None:
    page = visit()
    page.locator("#pt-prompt textarea, #pt-prompt input").focus()
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate(
            "() => { const a = document.activeElement; if (a.dataset.point) return 'point';"
            " if (a.closest('.pt-slider') && a.type === 'range') return 'slider';"
            " return a.closest('[id^=pt-]')?.id; }"
        ))  # fmt: skip
    wanted = {"slider", "point", "pt-method", "pt-tokens", "pt-seed", "pt-lock", "pt-generate", "pt-samples"}
    assert wanted <= reached
    assert any(str(name).startswith("pt-examples") for name in reached)
    page.uncheck("#pt-lock input")
    page.locator("#pt-generate").focus()
    after(page, lambda: page.keyboard.press("Enter"))
    assert page.input_value("#pt-seed input") != "0"


def test_bad_input_is_reported_and_the_server_lives(visit: Callable[..., Any]) -> None:
    page = visit()
    before = pictures(page)
    field = page.locator("#pt-prompt textarea, #pt-prompt input")

    def told(text: str) -> None:
        page.wait_for_function(
            "text => document.querySelector('#pt-message [role=alert]')?.textContent.includes(text)", arg=text
        )

    for text, reason in {"": "empty", "x" * 10_000: "10,000 characters", "a\u0007b": "U+0007"}.items():
        field.fill(text)
        page.click("#pt-generate")
        told(reason)
    field.fill("a red circle")
    for text, reason in {"nosuch": "nosuch", "red@nan": "scale", "red@1e9": "scale"}.items():
        page.fill("#pt-tokens textarea, #pt-tokens input", text)
        page.click("#pt-generate")
        told(reason)
    assert pictures(page) == before
    page.fill("#pt-tokens textarea, #pt-tokens input", "")
    markup = "<img src=x onerror=alert(1)> {{1+1}} ${2+2} </figure>"
    field.fill(markup)
    after(page, lambda: page.click("#pt-generate"))
    assert page.locator("#pt-samples img").count() == 2
    assert page.locator("#pt-samples img").nth(1).get_attribute("alt") == f"aligned: {markup}"
    # The errors are gone; the tiny model's encoders read only 16 tokens, which the page says.
    (told_last,) = page.locator("#pt-message [role=alert]").all_inner_texts()
    cut = "1 of 1 prompts is longer than the 16 tokens that {} reads: what follows them is cut"
    assert told_last == "; ".join(cut.format(encoder) for encoder in ("text_encoder", "text_encoder_2"))


def test_two_visitors_never_see_each_others_preference(visit: Callable[..., Any], tmp_path: Path) -> None:
    pages = [visit(), visit()]
    for number, page in enumerate(pages):
        slider(page, number).focus()
        page.keyboard.press("Home")
    for turn in range(3):
        for page in pages:
            page.fill("#pt-seed input", str(turn + 1))
        for page in pages:
            page.wait_for_selector(f"#pt-samples a[download='aligned-{turn + 1}.png']")
        told = [save(pictures(p), tmp_path / f"{turn}-{n}")[1] for n, p in enumerate(pages)]
        assert [t["preference"] for t in told] == [{"red": 0, "dark": 1}, {"red": 1, "dark": 0}]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone_in_either_theme(visit: Callable[..., Any], scheme: str) -> None:
    page = visit(width=400, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert page.evaluate("document.body.scrollWidth") <= 400
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(dark[:3]) < 384) == (scheme == "dark")
