"""Commands take the name of a model that `paretune fetch` brings."""

from __future__ import annotations

from pathlib import Path

import pytest

from paretune.commands.analyse.sides import settings_for
from paretune.foreign import fetched
from paretune.sampling.source import open_source
from paretune.types import ParetuneError


@pytest.fixture(autouse=True)
def not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path))
    monkeypatch.setattr(fetched, "_installed", lambda entry: None)


def test_sample_and_analyse_know_the_name() -> None:
    assert settings_for("smollm2").path == "smollm2"
    assert open_source("smollm2").model.path == "smollm2"  # its weights are asked for when it is opened
    with pytest.raises(ParetuneError, match="no run or model smollm3"):
        open_source("smollm3")


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path / "file"))
    with pytest.raises(ParetuneError, match=r"cannot write .*file"):
        fetched.fetch("smollm2")
