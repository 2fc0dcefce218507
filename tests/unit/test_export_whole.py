"""`paretune export` leaves a whole folder or none, whatever stops it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from safetensors import SafetensorError

from paretune.commands import export as exporting
from paretune.commands.export import export_adapter, export_pipeline
from paretune.files import disk_errors, new_folder
from paretune.models.sd3.policy import SD3Policy
from paretune.types import ParetuneError
from tests.made_run import make_run, make_tokens

RUST = 'Error while serializing: I/O error: No space left on device (os error 28)'


@pytest.fixture(scope="module")
def run(tiny_sd3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_run(tmp_path_factory.mktemp("made") / "run", tiny_sd3)
    make_tokens(made, tiny_sd3)
    return made


def raising(error: BaseException) -> Callable[..., NoReturn]:
    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    return fail


EXPORTS = {"adapter": lambda run, out: export_adapter(run, out, None), "pipeline": export_pipeline}


@pytest.mark.parametrize("kind", EXPORTS)
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError(RUST)])
def test_a_full_disk_is_one_line_and_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, error: Exception
) -> None:
    """It fills up at the last of the files: the tokens."""
    monkeypatch.setattr(exporting, "export_tokens", raising(error))
    with pytest.raises(ParetuneError) as caught:
        EXPORTS[kind](run, tmp_path / "out")
    told = f"no space left to write {tmp_path}/out: free some and resume, finished work is kept"
    assert str(caught.value) == told
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_within_a_librarys_own_writing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(self: object, folder: Path) -> bool:
        (folder / "model_index.json").write_text("{")
        raise SafetensorError(RUST)

    monkeypatch.setattr(SD3Policy, "save_pretrained", save)
    with pytest.raises(ParetuneError, match=f"no space left to write {tmp_path}/out: "):
        export_pipeline(run, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", EXPORTS)
def test_ctrl_c_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(exporting, "export_tokens", raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        EXPORTS[kind](run, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_export_left_is_hidden_and_cleared_by_the_next(run: Path, tmp_path: Path) -> None:
    """A kill takes the process before it can clear up: no process has this number."""
    left = tmp_path / f".out.{2**22 + 1}.partial"
    left.mkdir()
    (left / "adapter_config.json").write_text("{")
    export_adapter(run, tmp_path / "out", None)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "adapter_config.json", "adapter_model.safetensors", "pytorch_lora_weights.safetensors", "tokens",
    }  # fmt: skip


def test_nothing_is_renamed_before_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(handle: int) -> None:
        order.append("sync")
        fsync(handle)

    def renamed(a: Path, b: Path) -> None:
        order.append("rename")
        replace(a, b)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    with new_folder(tmp_path / "out") as made:
        (made / "a").write_text("a")
        (made / "b").mkdir()
        (made / "b" / "c").write_text("c")
    assert order == ["sync"] * 4 + ["rename"]
    assert (tmp_path / "out" / "b" / "c").read_text() == "c"


def test_a_folder_that_another_made_meanwhile_is_left_alone(tmp_path: Path) -> None:
    making = new_folder(tmp_path / "out")
    (making.__enter__() / "ours").write_text("ours")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "theirs").write_text("theirs")
    with pytest.raises(ParetuneError, match="exists already"):
        making.__exit__(None, None, None)
    assert [p.relative_to(tmp_path).as_posix() for p in sorted(tmp_path.rglob("*"))] == ["out", "out/theirs"]


def test_an_error_that_is_not_the_systems_is_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(SafetensorError, match="header"), disk_errors(tmp_path):
        raise SafetensorError("header too large")
