"""Atomic writes, hashes and manifests: a stage is done when its manifest is there and its hashes hold.

A manifest names the stage, its place below the run, a digest of everything that went in (`inputs`), and the
SHA-256 of every file that came out; its `seal` is a digest of all the rest of it. `finished` answers whether
a folder can be reused, and raises when it was damaged or belongs to something else: nothing is reused
silently. `seal` does the same for the run as a whole.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .types import ParetuneError

DEEPEST = 100  # levels of nesting in a JSON file that is read; no record of a run has ten
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
    """Turn a full or read-only disk, or a place where no file can be, into one clear line.

    Libraries that write from Rust raise errors of their own, which tell the system's number in words.
    """
    try:
        yield
    except ParetuneError:
        raise
    except Exception as raised:
        error = raised if isinstance(raised, OSError) else _told_by_system(raised)
        if error is None:
            raise
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise ParetuneError(
                f"no space left to write {path}: free some and resume, finished work is kept"
            ) from raised
        if isinstance(error, shutil.Error):  # copytree's: a list of (from, to, reason)
            reasons = error.args[0] if error.args and isinstance(error.args[0], list) else [(error,)]
            raise ParetuneError(f"cannot write {path}: {reasons[0][-1]}") from raised
        if error.errno in _NOT_WRITABLE:
            raise ParetuneError(f"cannot write {path}: {error.strerror}") from raised
        raise


def _told_by_system(error: Exception) -> OSError | None:
    """The system's error that another library's tells of: "No space left on device (os error 28)"."""
    found = re.search(r"\bos error (\d+)|\bOs \{ code: (\d+)", str(error))
    if found is None:
        return None
    number = int(found[1] or found[2])
    return OSError(number, os.strerror(number))


def check_new(target: Path) -> None:
    """Raise ParetuneError when the output is there already, or cannot be."""
    with disk_errors(target):
        if target.exists() or target.is_symlink():
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


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Make the folder `target` whole or not at all: yields a hidden one beside it, renamed at the end.

    Raises ParetuneError when there is something at `target`, and for a disk that does not take it.
    """
    check_new(target)
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = partial_folder(target)
        try:
            partial.mkdir()
            yield partial
            publish(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def publish(partial: Path, target: Path) -> None:
    """Give a whole folder its name, once all of it is on the disk: a crash must not leave empty files."""
    for path in (*partial.rglob("*"), partial):
        if not path.is_symlink():
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
    check_new(target)  # another process may have made it meanwhile
    os.replace(partial, target)


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
        return parse_json(path.read_bytes())
    except (ValueError, OSError) as error:
        raise ParetuneError(f"{path} is missing or damaged; delete its folder and resume") from error


def parse_json(data: bytes) -> Any:
    """JSON in UTF-8. Raises ValueError for anything else, and for what is nested too deeply to be ours."""
    try:
        value = json.loads(data.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if b"\\u" in data:  # halves of a pair, which no file of ours can hold again: UnicodeEncodeError
        json.dumps(value, ensure_ascii=False).encode()
    if data.count(b"[") + data.count(b"{") > DEEPEST:  # else it cannot be that deep
        level, depth = [value], 0
        while level:
            level = [v for x in level for v in _inner(x)]
            depth += 1
            if depth > DEEPEST:
                raise ValueError("it is nested too deeply")
    return value


def _inner(value: Any) -> list[Any]:
    """What a value holds; of one that holds nothing, nothing."""
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write JSON lines whole or not at all."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def read_rows(path: Path, torn: Callable[[], None] = lambda: None) -> list[dict[str, Any]]:
    """Read JSON lines; none where there is no file.

    An unfinished last line, which a killed append leaves, is left out, and `torn` is called. A damaged
    line before the last raises ParetuneError with the file and the line: what follows it is no less true.
    """
    if not os.path.lexists(path):
        return []
    try:
        lines = path.read_bytes().split(b"\n")  # not splitlines: a text may hold other line ends
    except OSError as error:
        raise ParetuneError(f"{path} cannot be read: {error.strerror}") from error
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
    row = parse_json(line)
    if not isinstance(row, dict):
        raise ValueError("it is no object in braces")
    return row
















