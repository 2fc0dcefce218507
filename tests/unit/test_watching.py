"""What a task writes is brought back as it is written, a checkpoint never in part."""

from __future__ import annotations

from pathlib import Path

import pytest

from paretune.executors.ray.parcels import Packer, Sent, unpack, within
from paretune.executors.ray.watching import Changes, Watch, put
from paretune.files import sha256
from paretune.types import ParetuneError


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_look_tells_what_is_new_and_what_is_gone(tmp_path: Path) -> None:
    write(tmp_path, metrics="1", checkpoints__a__state="s")
    watch = Watch(tmp_path)
    assert watch.look() == Changes()
    write(tmp_path, metrics="1 2", checkpoints__b__state="t")
    write(tmp_path, **{".metrics.tmp": "x", "checkpoints__.c__state": "y"})  # being written
    (tmp_path / "checkpoints/a/state").unlink()
    seen = watch.look()
    assert seen.files == {"metrics": b"1 2", "checkpoints/b/state": b"t"}
    assert list(seen.files) == ["checkpoints/b/state", "metrics"]  # metrics are never the older ones
    assert seen.gone == ("checkpoints/a/state",)
    assert not watch.look()


def test_a_checkpoint_that_goes_while_it_is_read_is_left_for_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, read = Watch(tmp_path), Path.read_bytes
    write(tmp_path, checkpoints__a__position="p", checkpoints__a__state="s")

    def replaced(path: Path) -> bytes:
        data = read(path)
        if path.name == "position":
            (tmp_path / "checkpoints/a").rename(tmp_path / "checkpoints/b")
        return data

    monkeypatch.setattr(Path, "read_bytes", replaced)
    assert watch.look() == Changes()
    monkeypatch.undo()
    assert watch.look().files == {"checkpoints/b/position": b"p", "checkpoints/b/state": b"s"}


def test_changes_are_put_the_manifest_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, old="o", checkpoints__a__state="s")
    files = {"manifest.json": b"{}", "checkpoints/b/state": b"t", "adapter": b"w"}
    put(tmp_path, Changes(files, ("checkpoints/a/state",)))
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")}
    assert left == {"old", "adapter", "manifest.json", "checkpoints", "checkpoints/b", "checkpoints/b/state"}
    put(tmp_path, Changes({"checkpoints/b/more": b"u"}))  # the others of the checkpoint stay
    assert {p.name for p in (tmp_path / "checkpoints/b").iterdir()} == {"state", "more"}
    order: list[str] = []
    monkeypatch.setattr(
        "paretune.executors.ray.watching.write_bytes", lambda path, data: order.append(path.name)
    )
    put(tmp_path, Changes({"manifest.json": b"", "adapter": b""}))
    assert order == ["adapter", "manifest.json"]
    for name in ("../x", "/x", "a/../../x"):
        with pytest.raises(ParetuneError, match="which is no file of"):
            put(tmp_path, Changes({name: b""}))


def test_a_file_of_the_user_is_sent_once_and_never_replaces_another(tmp_path: Path) -> None:
    file, home, stored = tmp_path / "reward.py", tmp_path / "home", list[bytes]()
    file.write_text("a = 1\n")
    packer = Packer(lambda data: stored.append(data) or data)
    sent = [packer._sent(str(file)) for _ in range(3)]
    assert stored == [b"a = 1\n"]
    assert sent[0] == Sent(str(file), sha256(file), b"a = 1\n")
    from paretune.executors.ray.parcels import Parcel

    def arrive(*files: Sent) -> None:
        unpack(Parcel("t", 1, b"", "/w/d", files=files), home, lambda data: data, sees_root=False)

    arrive(Sent("lib/reward.py", sent[0].sha256, b"a = 1\n"), Sent("../up.txt", "", b"u"))
    assert (within(home, "/w/d") / "lib/reward.py").read_bytes() == b"a = 1\n"
    assert (home / "w/up.txt").read_bytes() == b"u"
    arrive(Sent("lib/reward.py", "other", b"a = 2\n"))  # it was changed and the run resumed
    assert (home / "w/d/lib/reward.py").read_bytes() == b"a = 2\n"
    arrive(sent[0])  # the same file is there already
    file.write_text("mine = 1\n")
    with pytest.raises(ParetuneError, match="differs from the file of that name where the run was started"):
        arrive(sent[0])
    assert file.read_text() == "mine = 1\n"
    file.unlink()
    arrive(sent[0])
    assert file.read_text() == "a = 1\n"
