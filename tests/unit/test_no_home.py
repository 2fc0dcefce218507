"""Machines without a home, or with one that nothing can be written to."""

from pathlib import Path

import pytest
import torch

from paretune.models.embeddings import cache_folder, cached
from paretune.models.flow import Conditions


@pytest.mark.parametrize("home", ["/dev/null/home", "/proc/nonexistent"])
def test_embeddings_are_made_where_none_can_be_kept(monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    monkeypatch.delenv("PARETUNE_CACHE")
    monkeypatch.setenv("HOME", home)
    made = Conditions(torch.ones(1, 2, 3), torch.ones(1, 3))
    assert cached("owner/model", ["a"], lambda: made) is made


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("PARETUNE_CACHE")
    monkeypatch.setattr(Path, "home", none)
    assert cache_folder().name == "embeddings"
