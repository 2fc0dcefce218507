"""What a task takes to a machine: the pickled task, the run's folders that it reads, and the user's files.

A worker keeps it all in a folder of its own, the home, in which every path of the driver's machine has its
place: /home/me/runs/x is HOME/home/me/runs/x. Paths that a recipe gives relative to the working folder are so
found by the same names, and the digests of the results, in which the names are, stay the same. A file with an
absolute name is used where it is, and is put there if the machine has none.
"""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...files import disk_errors, sha256, write_bytes
from ...types import DealtDevices, ParetuneError, Part
from ..base import Devices, Luggage, Movable, Report, Task

Take = Callable[[Any], bytes]  # what fetches a file's content: `ray.get`


@dataclass(frozen=True)
class Sent:
    """A file. name: absolute, or relative to the working folder. data: what `Take` takes."""

    name: str
    sha256: str
    data: Any


@dataclass(frozen=True)
class Parcel:
    """One attempt of a task.

    body: the pickled function and task. cwd: the working folder on the driver's machine. root: the run's
    folder there, absolute, or None for a task that has none. writes: the folder that comes back, below root.
    run: files of the run's folder, by absolute names. files: the user's files. own, revision: see `Luggage`.
    """

    title: str
    devices: int
    body: bytes
    cwd: str
    root: str | None = None
    writes: str = ""
    run: tuple[Sent, ...] = ()
    files: tuple[Sent, ...] = ()
    own: tuple[str, ...] = ()
    revision: str | None = None


class Packer:
    """Makes parcels. A file is read and handed to `store` once, for all the parcels that hold it."""

    def __init__(self, store: Callable[[bytes], Any]) -> None:
        self._store = store
        self._known: dict[tuple[str, int, int], tuple[str, Any]] = {}

    def pack(self, function: Any, task: Task, sees_root: bool) -> Parcel:
        """The parcel of a task. sees_root: the machine sees the run's folder, so nothing of it is sent."""
        body, cwd = pickle.dumps((function, task)), os.getcwd()
        if not isinstance(task, Movable):
            return Parcel(task.title, task.devices, body, cwd)
        luggage = task.luggage()
        run = () if sees_root else tuple(self._sent(str(path.absolute())) for path in _of_run(luggage))
        files = tuple(self._sent(name) for name in (*luggage.files, *_outside(luggage)))
        return Parcel(
            task.title, task.devices, body, cwd, str(luggage.root.absolute()), luggage.writes, run, files,
            luggage.own, luggage.revision,
        )  # fmt: skip

    def forget(self) -> None:
        """Let go of the files: the next tasks have others."""
        self._known.clear()

    def _sent(self, name: str) -> Sent:
        with disk_errors(Path(name)):
            now = os.stat(name)
            key = (os.path.abspath(name), now.st_size, now.st_mtime_ns)
            if key not in self._known:
                self._known[key] = (sha256(Path(name)), self._store(Path(name).read_bytes()))
        return Sent(name, *self._known[key])


def _of_run(luggage: Luggage) -> Iterator[Path]:
    """The files below the run's folder that a task reads, and what an earlier attempt left in its own."""
    for folder in (*luggage.reads, luggage.writes):
        if not Path(folder).is_absolute():
            yield from _files(luggage.root / folder)


def _outside(luggage: Luggage) -> Iterator[str]:
    """The files of adapters that lie outside the run's folder."""
    for folder in filter(os.path.isabs, luggage.reads):
        yield from ([folder] if os.path.isfile(folder) else map(str, _files(Path(folder))))


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.is_file():
            yield path


def unpack(parcel: Parcel, home: Path, take: Take, sees_root: bool) -> Path | None:
    """Lay the files of a parcel down in a worker's home. Returns the folder of the run there, or None."""
    cwd = within(home, parcel.cwd)
    with disk_errors(cwd):
        cwd.mkdir(parents=True, exist_ok=True)
    for sent in parcel.files:
        _lay(sent, Path(sent.name) if os.path.isabs(sent.name) else cwd / sent.name, take)
    for name in parcel.own:
        place, there = cwd / name, Path(parcel.cwd, name)
        if not place.exists() and there.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(there)
    if parcel.root is None:
        return None
    if sees_root:
        return Path(parcel.root)
    root = within(home, parcel.root)
    shutil.rmtree(root, ignore_errors=True)  # what an earlier task left
    for sent in parcel.run:
        write_bytes(within(home, sent.name), take(sent.data))
    (root / parcel.writes).mkdir(parents=True, exist_ok=True)
    return root


def within(home: Path, path: str) -> Path:
    """The place of a path of the driver's machine in a worker's home."""
    return home / os.path.normpath(path).lstrip("/")


def _lay(sent: Sent, target: Path, take: Take) -> None:
    """Put a file in its place, unless the same one is there. One that the user has is never replaced."""
    target = Path(os.path.normpath(target))
    if target.is_file():
        if sha256(target) == sent.sha256:
            return
        if os.path.isabs(sent.name):
            raise ParetuneError(
                f"{sent.name} differs from the file of that name where the run was started; make them equal, "
                "or name it relative to the folder where the command is given, so that it is sent"
            )
    write_bytes(target, take(sent.data))


@dataclass(frozen=True)
class Unpacked:
    """A parcel whose files are in place. `executors.local` runs it as its task.

    part: the process of the task that is run here, where others run elsewhere.
    """

    parcel: Parcel
    home: Path
    root: Path | None
    part: Part | None = None

    @property
    def title(self) -> str:
        """See `base.Task`."""
        return self.parcel.title

    @property
    def devices(self) -> int:
        """See `base.Task`."""
        return 1 if self.part else self.parcel.devices


def run_unpacked(
    unpacked: Unpacked, report: Report, should_stop: Callable[[], bool], devices: Devices
) -> Any:
    """Run the task of a parcel in its home, once the machine is known to have its base model."""
    os.chdir(within(unpacked.home, unpacked.parcel.cwd))
    function, task = pickle.loads(unpacked.parcel.body)
    if unpacked.root is not None:
        task = task.moved(unpacked.root)
        task.check_here(unpacked.parcel.revision)
    if unpacked.part is not None:
        devices = DealtDevices(unpacked.part, devices[0])
    return function(task, report, should_stop, devices)
