"""Atomic writes, hashes and manifests: a stage is done when its manifest is there and its hashes hold.

A manifest names the stage, a digest of everything that went in (`inputs`), and the SHA-256 of every file
that came out. `finished` answers whether a folder can be reused, and raises when it was damaged or
belongs to something else: nothing is reused silently.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .types import ParetuneError

MANIFEST = "manifest.json"
# Not allowed, or no place for a file: below a file, a name too long, a file too big, ..
_NOT_WRITABLE = {
    errno.EACCES, errno.EROFS, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.ENOENT, errno.EISDIR,
    errno.ENAMETOOLONG, errno.EFBIG,
}  # fmt: skip


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Hex digest of plain data, the same for equal values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk, or a place where no file can be, into one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise ParetuneError(
                f"no space left to write {path}: free some and resume, finished work is kept"
            ) from error
        if isinstance(error, shutil.Error):  # copytree's: a list of (from, to, reason)
            reasons = error.args[0] if error.args and isinstance(error.args[0], list) else [(error,)]
            raise ParetuneError(f"cannot write {path}: {reasons[0][-1]}") from error
        if error.errno in _NOT_WRITABLE:
            raise ParetuneError(f"cannot write {path}: {error.strerror}") from error
        raise


def check_new(target: Path) -> None:
    """Raise ParetuneError when the output is there already, or cannot be."""
    with disk_errors(target):
        if target.exists():
            raise ParetuneError(f"{target} exists already; choose another output folder")


def partial_folder(target: Path) -> Path:
    """The hidden folder beside `target`, .NAME.PID.partial, in which a process makes it; not made here.

    Those that processes left which were killed are removed, and so is one of our own number: process
    numbers come again, and a process makes one `target` at a time.
    """
    prefix, suffix = f".{target.name}.", ".partial"
    for left in target.parent.glob(f"{glob.escape(prefix)}*{suffix}"):
        number = left.name[len(prefix) : -len(suffix)]
        if number.isdecimal() and (int(number) == os.getpid() or not _alive(int(number))):
            shutil.rmtree(left, ignore_errors=True)
    return target.with_name(f"{prefix}{os.getpid()}{suffix}")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON whole or not at all."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; a damaged file is named in one line."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ParetuneError(f"{path} is missing or damaged; delete its folder and resume") from error


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write JSON lines whole or not at all."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def read_rows(path: Path, torn: Callable[[], None] = lambda: None) -> list[dict[str, Any]]:
    """Read JSON lines; none where there is no file.

    An unfinished last line, which a killed append leaves, is left out, and `torn` is called. A damaged
    line before the last raises ParetuneError with the file and the line: what follows it is no less true.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")  # not splitlines: a text may hold other line ends
    if not lines[-1]:
        lines.pop()
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(_row(line))
        except ValueError as error:
            if number < len(lines):
                told = str(error).replace("\n", " ")
                raise ParetuneError(f"{path}, line {number} is not JSON: {told}") from error
            torn()
    return rows


def _row(line: bytes) -> dict[str, Any]:
    """One JSON object. Raises ValueError for anything else, bytes that are no UTF-8 included."""
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError("it is no object in braces")
    return row


def write_manifest(
    folder: Path, stage: str, inputs: str, files: Sequence[str], **facts: Any
) -> dict[str, Any]:
    """Declare a stage done. files: names below `folder`. Written last, so its presence means done."""
    hashes = {name: sha256(folder / name) for name in files}
    manifest = {"stage": stage, "inputs": inputs, "files": hashes, **facts}
    write_json(folder / MANIFEST, manifest)
    return manifest


def below(folder: Path, name: object) -> Path:
    """The file that a manifest calls `name`. ParetuneError for a name that leads out of its folder."""
    path = Path(name) if isinstance(name, str) and "\0" not in name else Path("/")
    if path.is_absolute() or ".." in path.parts:
        raise ParetuneError(f"{folder / MANIFEST} names {name!r}, which is no file of its folder; delete it")
    return folder / path


def finished(folder: Path, stage: str, inputs: str) -> dict[str, Any] | None:
    """The manifest of a finished stage, or None when it is still to do.

    Raises ParetuneError when a file changed since, or when the folder came from other inputs.
    """
    if not (folder / MANIFEST).exists():
        return None
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("stage") != stage:
        raise ParetuneError(f"{folder} is no {stage} of this run; move it away and resume")
    if not {"inputs", "files"} <= manifest.keys():
        raise ParetuneError(f"{folder / MANIFEST} is damaged; delete {folder} and resume")
    for name, expected in manifest["files"].items():
        path = below(folder, name)
        if not path.exists() or sha256(path) != expected:
            what = "is missing" if not path.exists() else "was changed or damaged (its hash differs)"
            raise ParetuneError(f"{path} {what}; delete {folder} and resume to make it again")
    if manifest["inputs"] != inputs:
        raise ParetuneError(
            f"{folder} was made from other inputs (recipe, parents, prompts or base model); "
            "delete it and resume to make it again"
        )
    return manifest


def files_digest(folder: Path) -> str:
    """One digest of the outputs of a finished stage: what its children depend on."""
    return digest(read_json(folder / MANIFEST)["files"])
