"""The cache of embeddings: an entry that is damaged is made again, never used."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from paretune.models.embeddings import cached
from paretune.models.flow import Conditions

WANTED = torch.arange(12, dtype=torch.float32).reshape(1, 3, 4)


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of one entry."""
    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path))
    cached("a/hub-id", ["prompt"], made)
    (path,) = (tmp_path / "embeddings").iterdir()
    return path


def made() -> Conditions:
    return Conditions(WANTED.clone(), WANTED[:, 0].clone())


def not_made() -> Conditions:
    pytest.fail("the encoder ran again")


def test_a_whole_entry_is_used(entry: Path) -> None:
    assert torch.equal(cached("a/hub-id", ["prompt"], not_made).embeds, WANTED)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", data[:8])
    data[8 + length + 5] ^= 1
    path.write_bytes(bytes(data))


def _without_digest(path: Path) -> None:
    """As versions before kept it."""
    save_file(load_file(path), path)


@pytest.mark.parametrize(
    "damage", [_flip, _without_digest, lambda path: path.write_bytes(path.read_bytes()[:-4])]
)
def test_a_damaged_entry_is_made_again_and_kept(entry: Path, damage) -> None:
    damage(entry)
    calls = []

    def again() -> Conditions:
        calls.append(1)
        return made()

    assert torch.equal(cached("a/hub-id", ["prompt"], again).embeds, WANTED)
    assert calls == [1]
    assert torch.equal(cached("a/hub-id", ["prompt"], not_made).embeds, WANTED)
