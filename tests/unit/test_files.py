"""Atomic writes, and manifests that let nothing damaged or foreign be reused."""

import errno
import json
import os
import subprocess
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import Mock

import pytest

from paretune.files import (
    digest,
    partial_folder,
    read_json,
    read_rows,
    write_bytes,
    write_json,
    write_rows,
    write_text,
)
from paretune.records.manifest import files_digest, finished, write_manifest
from paretune.types import ParetuneError


def failing(number: int) -> Any:
    """A call that fails as the system would."""

    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """A finished stage with two files, one in a folder below."""
    folder = tmp_path / "expert"
    write_text(folder / "adapter.bin", "weights")
    write_text(folder / "more" / "rows.jsonl", "{}\n")
    write_manifest(folder, "expert", "abc", ["adapter.bin", "more/rows.jsonl"], reward="ocr")
    return folder


def refusal(folder: Path, stage: str = "expert", inputs: str = "abc") -> str:
    """The one line with which a stage is not reused."""
    with pytest.raises(ParetuneError) as caught:
        finished(folder, stage, inputs)
    (line,) = str(caught.value).splitlines()
    return line


def test_a_write_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    write_text(path, "first, and longer")
    write_text(path, "zwölf")
    assert path.read_bytes() == "zwölf".encode()
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_one_line_and_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(errno.ENOSPC))
        with pytest.raises(ParetuneError) as caught:
            write_text(path, "new")
    told = f"no space left to write {path}: free some and resume, finished work is kept"
    assert str(caught.value) == told
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_may_not_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "mkdir", failing(errno.EACCES))
    with pytest.raises(ParetuneError) as caught:
        write_text(tmp_path / "below" / "a.txt", "x")
    assert str(caught.value) == f"cannot write {tmp_path}/below/a.txt: Permission denied"


def test_another_error_of_the_system_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        write_bytes(tmp_path / "a.bin", b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_manifest_is_still_to_do(tmp_path: Path) -> None:
    (tmp_path / "adapter.bin").write_text("half a run")
    assert finished(tmp_path, "expert", "abc") is None
    assert finished(tmp_path / "none", "expert", "abc") is None


def test_a_finished_stage_gives_its_manifest(stage: Path) -> None:
    manifest = finished(stage, "expert", "abc")
    assert manifest is not None
    assert manifest["reward"] == "ocr"
    # printf weights | sha256sum
    assert manifest["files"]["adapter.bin"] == (
        "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"
    )


def test_a_changed_byte_is_named(stage: Path) -> None:
    (stage / "adapter.bin").write_text("weightz")
    line = refusal(stage)
    assert line.startswith(f"{stage}/adapter.bin was changed or damaged")
    assert f"delete {stage} and resume" in line


def test_a_missing_file_is_named(stage: Path) -> None:
    (stage / "more" / "rows.jsonl").unlink()
    assert refusal(stage).startswith(f"{stage}/more/rows.jsonl is missing; delete {stage}")


def test_other_inputs_are_named(stage: Path) -> None:
    assert refusal(stage, inputs="abd").startswith(f"{stage} was made from other inputs")


def test_another_stage_is_named(stage: Path) -> None:
    assert refusal(stage, stage="merged") == f"{stage} is no merged of this run; move it away and resume"


@pytest.mark.parametrize("text", ["", '{"stage": "expert", "fi', "[]", '{"stage": "expert"}'])
def test_a_damaged_manifest_is_named(stage: Path, text: str) -> None:
    (stage / "manifest.json").write_text(text)
    assert refusal(stage).startswith(str(stage))


def test_damaged_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": ')
    for name in ("a.json", "none.json"):
        with pytest.raises(ParetuneError, match=f"{name} is missing or damaged"):
            read_json(tmp_path / name)


def test_json_and_rows_read_back(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ö": [1, 0.1, None]})
    assert read_json(tmp_path / "a.json") == {"ö": [1, 0.1, None]}
    rows = [{"a": 0.1, "text": "two\nlines\u2028"}, {"a": 2}]
    write_rows(tmp_path / "rows.jsonl", rows)
    assert read_rows(tmp_path / "rows.jsonl") == rows
    assert read_rows(tmp_path / "none.jsonl") == []


def test_an_unfinished_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    whole = json.dumps({"a": 1}) + "\n"
    last = json.dumps({"b": 22})
    for cut in range(len(last)):
        path.write_text(whole + last[:cut])
        assert read_rows(path) == [{"a": 1}]


def test_a_damaged_line_before_the_last_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    whole = b'{"a": 1}\n'
    for damage in (b'{"a": \n', b"\0\0\0\n", b"\n", b"7\n", b'{"a": "\xff"}\n', b'{"a": {"b": 2}\n'):
        path.write_bytes(2 * whole + damage + whole)
        with pytest.raises(ParetuneError) as caught:
            read_rows(path)
        (line,) = str(caught.value).splitlines()
        assert line.startswith(f"{path}, line 3 is not JSON: ")


def test_a_damaged_last_line_is_left_out_and_reported(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for damage in (b'{"b": 2', b'{"b": 2\n', b"\0\0\0", b"12", b'{"b": "\xc3'):
        torn = Mock()
        path.write_bytes(b'{"a": 1}\n' + damage)
        assert read_rows(path, torn) == [{"a": 1}]
        torn.assert_called_once_with()
    path.write_bytes(b'{"a": 1}\n')
    assert read_rows(path, lambda: pytest.fail("nothing is torn")) == [{"a": 1}]
    path.write_bytes(b'{"a": 1}')
    assert read_rows(path) == [{"a": 1}]


def test_digests_depend_on_values_not_on_order(stage: Path) -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    before = files_digest(stage)
    write_manifest(stage, "expert", "other inputs", ["adapter.bin", "more/rows.jsonl"])
    assert files_digest(stage) == before
    write_text(stage / "adapter.bin", "other")
    write_manifest(stage, "expert", "abc", ["adapter.bin", "more/rows.jsonl"])
    assert files_digest(stage) != before


def test_partial_folders_of_the_dead_are_removed(tmp_path: Path) -> None:
    """The parent's is kept, for it lives; other names' are nobody's business."""
    with subprocess.Popen(["true"]) as process:
        dead = process.pid
    mine, alive = os.getpid(), os.getppid()
    kept = [f".out.{alive}.partial", f".other.{dead}.partial", ".out.note.partial", ".out2.1.partial"]
    for name in [*kept, f".out.{dead}.partial", f".out.{mine}.partial", f".out.{10**30}.partial"]:
        write_text(tmp_path / name / "deep" / "file", "x")
    assert partial_folder(tmp_path / "out") == tmp_path / f".out.{mine}.partial"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(kept)
    assert partial_folder(tmp_path / "none" / "out").name == f".out.{mine}.partial"
