"""Checkpoints that are published as pickles: fetched when asked, checked, read as tensors alone."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from paretune.foreign import converted
from paretune.foreign.converted import Converted, convert, converted_folder, is_converted
from paretune.types import ParetuneError


class Harmful:
    """What a pickle may hold: to read it runs a command."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("exit 3",)


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub of one checkpoint in the layout of VideoReward. Returns its weights."""
    place = tmp_path / "hub"
    (place / "checkpoint-1").mkdir(parents=True)
    (place / "model_config.json").write_text("{}")
    weights = place / "checkpoint-1" / "model.pth"
    one = torch.arange(4.0)
    torch.save({"one": one, "same": one, "part": torch.arange(6.0)[::2]}, weights)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    entry = Converted(
        "who/what", "a" * 40, "checkpoint-1/model.pth", digest, 1000, "MIT", ("model_config.json",)
    )
    monkeypatch.setitem(converted.CONVERTED, "tiny", entry)
    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path / "cache"))

    def download(repo: str, file: str, revision: str) -> str:
        assert (repo, revision) == ("who/what", "a" * 40)
        return str(place / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    return weights


def test_a_checkpoint_becomes_safetensors_once(published: Path) -> None:
    with pytest.raises(ParetuneError, match="`paretune fetch tiny` downloads who/what"):
        converted_folder("tiny")
    told: list[str] = []
    folder = convert("tiny", told.append)
    assert told[0] == "downloading who/what (0.0 GB, licence MIT)"
    names = ["model.safetensors", "model_config.json", "source.json"]
    assert sorted(p.name for p in folder.iterdir()) == names
    tensors = load_file(folder / "model.safetensors")
    assert {name: value.tolist() for name, value in tensors.items()} == {
        "one": [0, 1, 2, 3], "same": [0, 1, 2, 3], "part": [0, 2, 4],
    }  # fmt: skip
    published.unlink()
    assert converted_folder("tiny") == convert("tiny") == folder  # nothing is downloaded again
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_other_bytes_are_not_read(published: Path) -> None:
    torch.save({"one": torch.zeros(1)}, published)
    with pytest.raises(ParetuneError, match="has other bytes than published"):
        convert("tiny")
    assert not is_converted("tiny")


@pytest.mark.parametrize("value", [Harmful(), {"one": Harmful()}, [torch.zeros(1)], {"one": 3}])
def test_more_than_tensors_is_refused_and_leaves_nothing(
    published: Path, monkeypatch: pytest.MonkeyPatch, value: object
) -> None:
    torch.save(value, published)
    digest = hashlib.sha256(published.read_bytes()).hexdigest()
    entry = converted.CONVERTED["tiny"]
    changed = Converted(entry.repo, entry.revision, entry.file, digest, 1, "MIT", entry.beside)
    monkeypatch.setitem(converted.CONVERTED, "tiny", changed)
    with pytest.raises(ParetuneError, match="holds more than tensors"):
        convert("tiny")
    assert list((published.parents[2] / "cache" / "converted").iterdir()) == []


def test_a_hub_that_does_not_answer_is_one_line(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **options: object) -> str:
        raise OSError("no connection\nand a long story")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    with pytest.raises(ParetuneError, match=r"tiny cannot be downloaded from who/what: no connection$"):
        convert("tiny")
