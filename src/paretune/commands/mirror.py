"""`paretune run --mirror URL`: a copy of the run's folder in a store that fsspec reaches, such as s3://.

A run works in a folder of its machine, because it locks, renames and maps files, which object stores cannot.
What is new is copied when a stage begins, every minute, and at the end. An index says which files make the
copy. It is written when they are there, and what it no longer names is removed after it, so a copy that was
broken off lacks nothing: some tables in it may be newer than the rest, as those of a killed run are.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..files import disk_errors, new_folder
from ..types import ParetuneError

INDEX = "mirror.json"
EVERY = 60.0  # seconds between two copies, at least
Report = Callable[[dict[str, Any]], None]


class Mirror:
    """The copy at an address. All its files are named relative to the run's folder."""

    def __init__(self, url: str) -> None:
        """Raises ParetuneError where nothing can be kept at `url`: the scheme, its package, or the login."""
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem

        self.url = url.rstrip("/")
        try:
            self._fs, self._base = url_to_fs(self.url)
        except (ImportError, ValueError) as error:  # "Install s3fs to access S3", "Protocol not known: .."
            raise ParetuneError(f"--mirror {url}: {_line(error)}") from error
        self._renames = isinstance(self._fs, LocalFileSystem)
        self._known: Mapping[str, tuple[int, int, int] | None] = {}
        try:
            self._known = dict.fromkeys(self._index())
            self._write_index()  # to see that it can be written
        except Exception as error:  # each store has errors of its own
            raise ParetuneError(f"--mirror {url}: it cannot be used: {_line(error)}") from error

    @property
    def holds_run(self) -> bool:
        """Whether a run has been copied here."""
        return "config.yaml" in self._known

    def pull(self, folder: Path) -> None:
        """Make the run's folder, which does not exist, from the copy."""
        with new_folder(folder) as partial, disk_errors(folder):
            for name in self._known:
                target = partial / name
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    self._fs.get_file(self._at(name), str(target))
                except Exception as error:
                    raise ParetuneError(f"{self.url}/{name} cannot be read: {_line(error)}") from error

    def push(self, folder: Path) -> None:
        """Copy what is new. Raises the store's own errors; what was not copied is copied the next time."""
        now = dict(_stamps(folder))
        new = [name for name, stamp in now.items() if self._known.get(name) != stamp]
        for name in list(new):
            try:
                self._write(name, (folder / name).read_bytes())
            except FileNotFoundError:  # it was removed in this moment
                del now[name]
        gone, self._known = self._known.keys() - now.keys(), now
        if new or gone:
            self._write_index()
        for name in gone:
            if self._fs.exists(self._at(name)):
                self._fs.rm_file(self._at(name))

    def _index(self) -> list[str]:
        if not self._fs.exists(self._at(INDEX)):
            return []
        names = json.loads(self._fs.cat_file(self._at(INDEX)))
        if not isinstance(names, list) or not all(_is_inside(name) for name in names):
            raise ValueError(f"{INDEX} is not an index of files")
        return names

    def _write_index(self) -> None:
        self._write(INDEX, json.dumps(sorted(self._known), indent=0).encode())

    def _write(self, name: str, data: bytes) -> None:
        """Write a file whole or not at all. Object stores do so by themselves."""
        place = self._at(name)
        self._fs.makedirs(place.rpartition("/")[0], exist_ok=True)
        self._fs.pipe_file(place + ".part" * self._renames, data)
        if self._renames:
            os.replace(place + ".part", place)

    def _at(self, name: str) -> str:
        return f"{self._base}/{name}"


def _stamps(folder: Path) -> Iterator[tuple[str, tuple[int, int, int]]]:
    """The files of a folder that are whole, by relative name: those of which no part begins with a dot."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(place, name)
            try:
                now = path.lstat()
            except FileNotFoundError:  # workers write and remove meanwhile
                continue
            if not name.startswith(".") and stat.S_ISREG(now.st_mode):
                yield path.relative_to(folder).as_posix(), (now.st_size, now.st_mtime_ns, now.st_ino)


def _is_inside(name: object) -> bool:
    return isinstance(name, str) and not Path(name).is_absolute() and ".." not in Path(name).parts


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


@contextmanager
def mirrored(out: Path, url: str, resume: bool, report: Report) -> Iterator[Report]:
    """Keep a copy of the run in `out` at `url` within a block; with `resume`, begin with the copy.

    Args:
        out: the run's folder. Where it holds no run, and `resume` is given, it is made from the copy.
        url: an address that fsspec knows.
        resume: whether the address may hold a run.
        report: is told in a notice when the copy cannot be written. It is tried again.

    Yields:
        The report to use within the block.

    Raises:
        ParetuneError: the address cannot be used, it holds a run without `resume`, or, after a run that has
            ended well, the last copy could not be written.
    """
    mirror = Mirror(url)
    if mirror.holds_run and not resume:
        raise ParetuneError(
            f"{url} holds a run already; continue it with --resume, or choose another --mirror"
        )
    if mirror.holds_run and not (out / "config.yaml").exists():
        if out.is_dir() and not any(out.iterdir()):
            out.rmdir()
        mirror.pull(out)
    last, told = time.monotonic(), ""

    def push() -> None:
        nonlocal last, told
        last, before = time.monotonic(), told
        try:
            mirror.push(out)
            told = ""
        except Exception as error:  # a network that is down must not end a training
            told = _line(error)
            if not before:
                report({"notice": f"the copy at {url} cannot be written, and is tried again: {told}"})

    def watching(event: dict[str, Any]) -> None:
        report(event)
        if "stage" in event or time.monotonic() - last > EVERY:
            push()

    try:
        yield watching
    finally:
        if (out / "config.yaml").exists():
            push()
    if told:
        raise ParetuneError(
            f"the run in {out} is finished, but its copy at {url} could not be written ({told}); the same "
            "command with --resume copies it"
        )
