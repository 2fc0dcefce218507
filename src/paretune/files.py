"""Reading and writing files: atomic writes, hashes, JSON and JSON lines, one clear line for disk errors.

A file or a folder is written completely or not at all. Manifests of stages are in `records.manifest`.
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

DEEPEST = 100  # levels of nesting that a JSON file may have; no record of a run has ten
# The user may not write there, or no file can be there: the parent is a file, the name is too long, ..
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


def real(path: Path) -> Path:
    """The place that a path leads to. A circle of links leads to itself, where `Path.resolve` would raise."""
    return Path(os.path.realpath(path))


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a disk that is full or read-only, or a path where no file can be, into a ParetuneError.

    Libraries that write from Rust raise other classes of errors; the system's error number is in their text.
    """
    try:
        yield
    except ParetuneError:
        raise
    except Exception as raised:
        error = raised if isinstance(raised, OSError) else _system_error(raised)
        if error is None:
            raise
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise ParetuneError(
                f"no space left to write {path}: free some and resume, finished work is kept"
            ) from raised
        if isinstance(error, shutil.Error):  # copytree raises it with a list of (from, to, reason)
            reasons = error.args[0] if error.args and isinstance(error.args[0], list) else [(error,)]
            raise ParetuneError(f"cannot write {path}: {reasons[0][-1]}") from raised
        if error.errno in _NOT_WRITABLE:
            raise ParetuneError(f"cannot write {path}: {error.strerror}") from raised
        raise


def _system_error(error: Exception) -> OSError | None:
    """The system's error that another library's message quotes: "No space left on device (os error 28)"."""
    match = re.search(r"\bos error (\d+)|\bOs \{ code: (\d+)", str(error))
    if match is None:
        return None
    number = int(match[1] or match[2])
    return OSError(number, os.strerror(number))


def check_local(target: Path, hint: str = "a folder of this machine, or one that is mounted there") -> None:
    """Raise ParetuneError for a URL such as s3://bucket/run, which would become a folder named `s3:`."""
    scheme = target.parts[0] if len(target.parts) > 1 else ""
    if re.fullmatch(r"[a-z][a-z0-9+.-]+:", scheme):
        url = str(target).replace(":/", "://", 1)
        raise ParetuneError(f"{url} is an address; give {hint}")


def check_new(target: Path) -> None:
    """Raise ParetuneError when the output exists already or cannot exist."""
    check_local(target)
    with disk_errors(target):
        if target.exists() or target.is_symlink():
            raise ParetuneError(f"{target} exists already; choose another output folder")


def check_room(target: Path) -> None:
    """Raise ParetuneError if nothing can be written at `target`; called before long work.

    A folder is made in the nearest parent that exists, and removed again.
    """
    with disk_errors(target):
        above = next(place for place in target.absolute().parents if place.exists())
        trial = above / partial_folder(target).name
        trial.mkdir()
        trial.rmdir()


def partial_folder(target: Path) -> Path:
    """The path of the hidden folder beside `target`, .NAME.PID.partial, in which this process makes it.

    The folder is not created here. Such folders of killed processes are removed. A folder with this process's
    number is removed too: numbers are reused, and a process makes one `target` at a time.
    """
    prefix, suffix = f".{target.name}.", ".partial"
    for left in target.parent.glob(f"{glob.escape(prefix)}*{suffix}"):
        number = left.name[len(prefix) : -len(suffix)]
        if number.isdecimal() and (int(number) == os.getpid() or not alive(int(number))):
            shutil.rmtree(left, ignore_errors=True)
    return target.with_name(f"{prefix}{os.getpid()}{suffix}")


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Make the folder `target` completely or not at all.

    Yields a hidden folder beside it, which is renamed at the end. Raises ParetuneError when `target` exists
    or when the disk refuses the write.
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
    """Rename a complete folder once all of it is on the disk, so that a crash leaves no empty files."""
    for path in (*partial.rglob("*"), partial):
        if not path.is_symlink():
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
    check_new(target)  # another process may have made it meanwhile
    os.replace(partial, target)


def alive(pid: int) -> bool:
    """Whether this machine has a process of that number."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # the process belongs to another user
        return True
    return True


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file completely or not at all."""
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
    """Write a text file completely or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON completely or not at all."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON. Raises ParetuneError, which names the file, when it is missing or damaged."""
    try:
        return parse_json(path.read_bytes())
    except (ValueError, OSError) as error:
        raise ParetuneError(f"{path} is missing or damaged; delete its folder and resume") from error


def parse_json(data: bytes) -> Any:
    """JSON in UTF-8. Raises ValueError for anything else, and for a value nested more than DEEPEST levels."""
    try:
        value = json.loads(data.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if b"\\u" in data:  # half of a surrogate pair cannot be written again: UnicodeEncodeError
        json.dumps(value, ensure_ascii=False).encode()
    if data.count(b"[") + data.count(b"{") > DEEPEST:  # with fewer brackets it cannot be that deep
        level, depth = [value], 0
        while level:
            level = [child for parent in level for child in _children(parent)]
            depth += 1
            if depth > DEEPEST:
                raise ValueError("it is nested too deeply")
    return value


def _children(value: Any) -> list[Any]:
    """The values in a dictionary or a list; none for any other value."""
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def write_rows(path: Path, rows: Sequence[dict[str, Any]], finite: bool = False) -> None:
    """Write JSON lines completely or not at all.

    finite: raise ParetuneError for NaN or an infinite number, which other programs do not read.
    """
    try:
        text = "".join(json.dumps(row, allow_nan=not finite) + "\n" for row in rows)
    except ValueError as error:
        raise ParetuneError(
            f"{path} was not written: a record holds NaN or an infinite number, for which JSON has no word"
        ) from error
    write_text(path, text)


def read_rows(path: Path, torn: Callable[[], None] = lambda: None) -> list[dict[str, Any]]:
    """Read JSON lines; an empty list when the file does not exist.

    A process that is killed while it appends leaves an unfinished last line. That line is left out, and
    `torn` is called. A damaged line before the last raises ParetuneError with the file and the line number,
    because the rows after it are valid and must not be lost silently.
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
                reason = str(error).replace("\n", " ")
                raise ParetuneError(f"{path}, line {number} is not JSON: {reason}") from error
            torn()
    return rows


def _row(line: bytes) -> dict[str, Any]:
    """One JSON object. Raises ValueError for anything else, such as bytes that are not UTF-8."""
    row = parse_json(line)
    if not isinstance(row, dict):
        raise ValueError("it is not a JSON object")
    return row
