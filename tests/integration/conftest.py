"""One tiny run for all tests that need a finished one, and one browser."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import tiny_recipe
from tests.warm import PopenOrWarm, warm_process

from .browsing import CHROMIUM
from .commands import call


@pytest.fixture(autouse=True)
def _warm_rewards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run in the process of a test starts the process of its rewards anew, without loading torch."""
    warm = warm_process()
    if warm is not None and warm.fits(os.environ):
        started = SimpleNamespace(**{**vars(subprocess), "Popen": PopenOrWarm})
        monkeypatch.setattr("paretune.rewards.process.subprocess", started)


@pytest.fixture(scope="session")
def recipe(tiny_sd3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe of `whole`. Its folder is shared: leave it as it was."""
    return tiny_recipe(tmp_path_factory.mktemp("recipe"), tiny_sd3)


@pytest.fixture(scope="session")
def whole(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run, two workers. Read it; to change it, take a copy."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    done = call("run", recipe, "--out", out, "--quiet", "--set", "executor.workers=2")
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()
