"""A run's copy at an address: what is new goes there, and a run is made again from it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from paretune.commands.mirror import INDEX, Mirror, mirrored
from paretune.files import check_local
from paretune.types import ParetuneError

Events = list[dict[str, Any]]


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"file://{tmp_path}/store/run" if request.param == "file" else f"memory://{tmp_path}/run"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """What a run has when it was begun."""
    return write(tmp_path / "run", {"config.yaml": "name: x", "round-1/checkpoints/epoch-0001/state": "1"})


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def held(url: str) -> dict[str, str]:
    """The files at an address, but for the index."""
    fs, base = fsspec.url_to_fs(url)
    files = {name.removeprefix(f"{base}/"): fs.cat_file(name).decode() for name in fs.find(base)}
    return {name: text for name, text in files.items() if name != INDEX}


def test_a_run_is_made_again_from_its_copy(url: str, out: Path, tmp_path: Path) -> None:
    events = Events()
    with mirrored(out, url, False, events.append) as report:
        report({"update": 1})
        assert held(url) == {}  # a minute has not passed
        report({"stage": "reduce"})
        assert held(url) == {"config.yaml": "name: x", "round-1/checkpoints/epoch-0001/state": "1"}
        (out / "round-1/checkpoints/epoch-0001/state").unlink()
        write(out, {"round-1/checkpoints/epoch-0002/state": "2", ".lock": "7", "round-1/.new.tmp/state": ""})
    last = {"config.yaml": "name: x", "round-1/checkpoints/epoch-0002/state": "2"}
    assert held(url) == last
    assert events == [{"update": 1}, {"stage": "reduce"}]
    with pytest.raises(ParetuneError, match=r"holds a run already; continue it with --resume"), \
            mirrored(tmp_path / "again", url, False, events.append):  # fmt: skip
        pass
    again = tmp_path / "again"
    again.mkdir()
    with mirrored(again, url, True, events.append):
        found = {p.relative_to(again).as_posix(): p.read_text() for p in again.rglob("*") if p.is_file()}
    assert found == last


def breaking(monkeypatch: pytest.MonkeyPatch, what: Callable[[str], bool]) -> None:
    """Let files of some names fail to be written."""
    kept = Mirror._write

    def write_(self: Mirror, name: str, data: bytes) -> None:
        if what(name):
            raise OSError("the network is down")
        kept(self, name, data)

    monkeypatch.setattr(Mirror, "_write", write_)


def test_a_copy_that_was_broken_off_lacks_nothing(
    url: str, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = Events()
    with mirrored(out, url, False, events.append) as report:
        report({"stage": "map"})
        (out / "round-1/checkpoints/epoch-0001/state").unlink()
        write(out, {"round-1/checkpoints/epoch-0002/a": "a", "round-1/checkpoints/epoch-0002/b": "b"})
        with monkeypatch.context() as broken:
            breaking(broken, lambda name: name.endswith("/b"))
            report({"stage": "reduce"})
            report({"stage": "reduce"})
            Mirror(url).pull(tmp_path / "pulled")
        assert (tmp_path / "pulled/round-1/checkpoints/epoch-0001/state").read_text() == "1"
        assert not (tmp_path / "pulled/round-1/checkpoints/epoch-0002").exists()
    assert [event["notice"] for event in events if "notice" in event] == [
        f"the copy at {url} cannot be written, and is tried again: the network is down"
    ]
    assert held(url).keys() == {"config.yaml", *(f"round-1/checkpoints/epoch-0002/{n}" for n in "ab")}


def _broken(monkeypatch: pytest.MonkeyPatch) -> Exception:
    breaking(monkeypatch, lambda name: True)
    return KeyError()


def test_a_last_copy_that_fails_is_told(url: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = Events()
    with monkeypatch.context() as broken, pytest.raises(ParetuneError) as caught, \
            mirrored(out, url, False, events.append):  # fmt: skip
        breaking(broken, lambda name: True)
    assert str(caught.value) == (
        f"the run in {out} is finished, but its copy at {url} could not be written (the network is down); "
        "the same command with --resume copies it"
    )
    with pytest.raises(KeyError), mirrored(out, url, True, events.append):
        raise _broken(monkeypatch)  # why the run ended is what is told


def test_an_address_that_cannot_be_used_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ParetuneError, match=r"^--mirror nowhere://x: Protocol not known: nowhere$"):
        Mirror("nowhere://x")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(ParetuneError, match=r"^--mirror s3://bucket/run: Install s3fs to access S3$"):
        Mirror("s3://bucket/run")
    (tmp_path / "file").write_text("")
    with pytest.raises(ParetuneError, match=r"/file/run: it cannot be used: .*Not a directory"):
        Mirror(f"file://{tmp_path}/file/run")
    write(tmp_path, {f"bad/{INDEX}": '["../../x"]'})
    with pytest.raises(ParetuneError, match=r"bad: it cannot be used: mirror.json is not an index of files"):
        Mirror(f"file://{tmp_path}/bad")


def test_a_run_folder_is_no_address() -> None:
    with pytest.raises(ParetuneError, match=r"^s3://bucket/run is an address; give a folder of this machine"):
        check_local(Path("s3://bucket/run"))
    for fine in ("run", "/a/b", "a:b/c", "s3:"):
        check_local(Path(fine))
