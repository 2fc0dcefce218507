"""The page's question "Which do you like better?" in a real browser."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.made_run import make_run

from .browsing import needs_chromium, served, slider, visits

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def address(tiny_sd3: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(make_run(tmp_path_factory.mktemp("demo") / "tiny", tiny_sd3)) as url:
        yield url


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    with visits(browser, address, "#pt-samples img") as open_page:
        yield open_page


def _asked(page: Any, act: Callable[[], object]) -> None:
    """Wait until the pair of samples is another one."""
    before = page.inner_html("#pt-pair")
    act()
    page.wait_for_function(
        "before => { const pair = document.querySelector('#pt-pair');"
        " return pair.querySelectorAll('img').length === 2 && pair.innerHTML !== before; }", arg=before,
    )  # fmt: skip


def test_four_choices_set_the_sliders_and_say_how_sure_they_are(visit: Callable[..., Any]) -> None:
    page = visit()
    assert page.locator("#pt-choose-A").count() == 0
    _asked(page, lambda: page.click("#pt-choose-start"))
    assert page.locator("#pt-pair figure").count() == 2
    _asked(page, lambda: page.click("#pt-choose-neither"))
    for number in range(1, 5):
        _asked(page, lambda: page.click("#pt-choose-A"))
        page.wait_for_function(
            "n => document.querySelector('#pt-told').textContent"
            ".includes(n < 4 ? `${n} of at least 4 choices` : `Weights from ${n} choices`)", arg=number,
        )  # fmt: skip
    told = page.eval_on_selector_all("#pt-told .pt-value", "all => all.map(one => one.textContent)")
    shares = [float(text.split(" ± ")[0]) for text in told]
    assert sum(shares) == pytest.approx(1, abs=0.02)
    assert all(float(text.split(" ± ")[1]) > 0 for text in told)
    page.wait_for_function(
        "share => Math.abs(document.querySelector('.pt-slider input[type=range]').value - share) < .006",
        arg=shares[0],
    )
    assert float(slider(page, 1).input_value()) == pytest.approx(shares[1], abs=0.006)
    if os.environ.get("PARETUNE_SHOTS"):  # for eyes
        page.screenshot(path=f"{os.environ['PARETUNE_SHOTS']}/choosing.png", full_page=True)
    before = page.inner_html("#pt-told")
    _asked(page, lambda: page.click("#pt-choose-start"))  # again from the beginning
    assert page.inner_html("#pt-told") != before


def test_the_question_fits_a_phone(visit: Callable[..., Any]) -> None:
    page = visit(width=390, scheme="dark")
    _asked(page, lambda: page.click("#pt-choose-start"))
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
