"""What a task has written since the last look, and putting it into the run's folder.

Files and folders whose names begin with a dot are being written and are left alone. A checkpoint is a folder
that appears whole, so it is taken and put back whole. The files beside it are read after it: metrics that are
older than a checkpoint would miss a row, and training removes rows that are newer.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ...files import disk_errors, write_bytes
from ...types import ParetuneError

CHECKPOINTS = "checkpoints"
LAST = "manifest.json"  # says that all other files are there
Stamp = tuple[int, int, int]  # size, time of change, and number of a file


@dataclass(frozen=True)
class Changes:
    """files: contents by path below the folder. gone: paths of files that are no longer there."""

    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    gone: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything changed."""
        return bool(self.files or self.gone)


class Watch:
    """Looks at a folder again and again."""

    def __init__(self, folder: Path) -> None:
        """What is in the folder now counts as known."""
        self.folder = folder
        self._known = dict(_stamps(folder))

    def look(self) -> Changes:
        """The changes since the last look; none where a file was replaced while it was read."""
        try:
            now = dict(_stamps(self.folder))
            new = [name for name, stamp in now.items() if self._known.get(name) != stamp]
            new.sort(key=lambda name: (not name.startswith(f"{CHECKPOINTS}/"), name))
            files = {name: (self.folder / name).read_bytes() for name in new}
            after = dict(_stamps(self.folder))
        except FileNotFoundError:
            return Changes()
        # A checkpoint that is no longer whole is left for the next look, which finds the one that follows it.
        if any(name.startswith(f"{CHECKPOINTS}/") and after.get(name) != now[name] for name in new):
            return Changes()
        gone = tuple(sorted(self._known.keys() - now.keys()))
        self._known = now
        return Changes(files, gone)


def _stamps(folder: Path) -> Iterator[tuple[str, Stamp]]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(place, name)
            if not name.startswith(".") and not path.is_symlink():
                now = path.stat()
                yield path.relative_to(folder).as_posix(), (now.st_size, now.st_mtime_ns, now.st_ino)


def put(folder: Path, changes: Changes) -> None:
    """Make the changes in a folder: single files first, whole checkpoints, the manifest, and removals last.

    Raises ParetuneError for a path that leads out of the folder, and where the disk refuses.
    """
    for name in (*changes.files, *changes.gone):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ParetuneError(f"a worker sent {name!r}, which is no file of {folder}")
    checkpoints: dict[str, dict[str, bytes]] = {}
    for name, data in changes.files.items():
        parts = Path(name).parts
        if parts[0] == CHECKPOINTS and len(parts) > 2:
            checkpoints.setdefault(parts[1], {})["/".join(parts[2:])] = data
        elif name != LAST:
            write_bytes(folder / name, data)
    for name, files in checkpoints.items():
        _put_checkpoint(folder / CHECKPOINTS / name, files)
    if LAST in changes.files:
        write_bytes(folder / LAST, changes.files[LAST])
    with disk_errors(folder):
        for name in changes.gone:
            (folder / name).unlink(missing_ok=True)
            _remove_empty((folder / name).parent, folder)


def _put_checkpoint(final: Path, files: dict[str, bytes]) -> None:
    """Write a checkpoint's folder beside its place and rename it, as `training.checkpoint` does."""
    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    for name, data in files.items():
        write_bytes(temporary / name, data)
    with disk_errors(final):
        if final.exists():
            for kept in final.rglob("*"):  # only some of its files changed
                target = temporary / kept.relative_to(final)
                if kept.is_file() and not target.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(kept, target)
            shutil.rmtree(final)
        os.replace(temporary, final)


def _remove_empty(place: Path, top: Path) -> None:
    """Remove a folder that became empty, and those above it, below `top`."""
    while place != top and place.is_dir() and not any(place.iterdir()):
        place.rmdir()
        place = place.parent
