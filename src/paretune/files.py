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
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .types import ParetuneError

MANIFEST = "manifest.json"
METRICS = "metrics.jsonl"  # a row an epoch of training
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


def write_manifest(
    folder: Path,
    stage: str,
    inputs: str,
    files: Sequence[str],
    logs: Sequence[str] = (),
    place: str = "",
    **facts: Any,
) -> dict[str, Any]:
    """Declare a stage done. Written last, so its presence means done.

    files: names below `folder`, what comes out. logs: others that are sealed with them, where they are there.
    place: the folder's own below the run; a manifest that stands elsewhere is not taken for it.
    """
    manifest: dict[str, Any] = {"stage": stage, "inputs": inputs}
    if place:
        manifest["place"] = place
    with disk_errors(folder):  # it may be removed under our hands
        manifest["files"] = {name: sha256(folder / name) for name in files}
        if kept := [name for name in logs if (folder / name).is_file()]:
            manifest["logs"] = {name: sha256(folder / name) for name in kept}
    manifest |= facts
    write_json(folder / MANIFEST, {**manifest, "seal": digest(manifest)})
    return manifest


def below(folder: Path, name: object) -> Path:
    """The file that a manifest calls `name`. ParetuneError for a name that leads out of its folder."""
    path = Path(name) if isinstance(name, str) and "\0" not in name else Path("/")
    if path.is_absolute() or ".." in path.parts:
        raise ParetuneError(f"{folder / MANIFEST} names {name!r}, which is no file of its folder; delete it")
    return folder / path


def read_manifest(folder: Path) -> dict[str, Any]:
    """A folder's manifest, as it was written. Raises ParetuneError, one line, when it was changed since.

    Manifests of versions that did not seal them are read as they are.
    """
    path = folder / MANIFEST
    manifest = read_json(path)
    told = ParetuneError(f"{path} was changed or damaged; delete {folder} and resume to make it again")
    if not isinstance(manifest, dict):
        raise told
    seal = manifest.pop("seal", None)
    if seal is not None and seal != digest(manifest):
        raise told
    if not all(isinstance(manifest.get(key, ""), str) for key in ("stage", "inputs", "place")):
        raise told
    if not all(_is_listing(manifest.get(key, {})) for key in ("files", "logs")):
        raise told
    return manifest


def _is_listing(value: Any) -> bool:
    """Names of files below a folder, and their hashes."""
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(hashed, str) and "\0" not in name
        and not Path(name).is_absolute() and ".." not in Path(name).parts
        for name, hashed in value.items()
    )  # fmt: skip


def fault_of(path: Path, expected: str) -> str | None:
    """What is wrong with a file that should have the SHA-256 `expected`, in words; None if nothing is."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return "is no file any more"
        return None if sha256(path) == expected else "was changed or damaged (its hash differs)"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def finished(folder: Path, stage: str, inputs: str) -> dict[str, Any] | None:
    """The manifest of a finished stage, or None when it is still to do.

    Raises ParetuneError when a file changed since, or when the folder came from other inputs.
    """
    if not os.path.lexists(folder / MANIFEST):
        return None
    manifest = read_manifest(folder)
    if manifest.get("stage") != stage:
        raise ParetuneError(f"{folder} is no {stage} of this run; move it away and resume")
    if not {"inputs", "files"} <= manifest.keys():
        raise ParetuneError(f"{folder / MANIFEST} is damaged; delete {folder} and resume")
    check_place(folder, manifest)
    for name, expected in {**manifest["files"], **manifest.get("logs", {})}.items():
        if fault := fault_of(below(folder, name), expected):
            raise ParetuneError(f"{folder / name} {fault}; delete {folder} and resume to make it again")
    if manifest["inputs"] != inputs:
        raise ParetuneError(
            f"{folder} was made from other inputs (recipe, parents, prompts or base model); "
            "delete it and resume to make it again"
        )
    return manifest


def check_place(folder: Path, manifest: dict[str, Any]) -> None:
    """Raise ParetuneError when a manifest was made for another folder of the run than it stands in."""
    parts = Path(manifest.get("place", "")).parts
    if parts and folder.parts[-len(parts) :] != parts:
        raise ParetuneError(
            f"{folder} was made from other inputs: it is {manifest['place']} of a run; put it back, or "
            "delete it and resume to make it again"
        )


def files_digest(folder: Path) -> str:
    """One digest of the outputs of a finished stage: what its children depend on."""
    return digest(read_manifest(folder)["files"])
