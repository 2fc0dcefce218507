"""The seal of a run, RUN/seal.json, which every command that reads a run checks first.

It holds the size, the modification time and the SHA-256 of each file that other commands read, and of the
files of the base model. A file whose size and time are unchanged is trusted, and any other file is hashed, so
that a copied run stays valid; `--verify` hashes all files. While a run is in progress its seal covers the
base model alone. Runs of earlier versions have no seal and are read unchecked.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ..files import digest, parse_json, real, sha256, write_json
from ..types import ParetuneError
from .manifest import MANIFEST, fault_of, read_manifest

SEAL = "seal.json"
# Files directly in the run's folder: its results, and what it was made from.
TOP_FILES = (
    "config.yaml", "plan.json", "environment.json", "timing.jsonl", "evaluation.jsonl", "summary.json",
)  # fmt: skip
TREES = ("samples", "final/tokens")  # folders that are sealed with all their files
UNREAD = {"checkpoints", "teacher"}  # folders that only training reads; a user may remove them to free space
BASE_FILES = {".safetensors", ".json", ".txt", ".model", ".jinja"}


@dataclass(frozen=True)
class Entry:
    """A sealed file."""

    size: int
    mtime_ns: int
    sha256: str

    def fault(self, path: Path, verify: bool) -> str | None:
        """What is wrong with the file now, in words; None if it is intact."""
        if not verify:
            try:
                now = path.stat()
            except OSError:
                return fault_of(path, self.sha256)
            same = (now.st_size, now.st_mtime_ns) == (self.size, self.mtime_ns)
            if same and stat.S_ISREG(now.st_mode):
                return None
        return fault_of(path, self.sha256)


@dataclass(frozen=True)
class Seal:
    """base: files of the base model, by name below its folder. files: the run's, once it is finished."""

    base: Mapping[str, Entry] = field(default_factory=dict[str, Entry])
    files: Mapping[str, Entry] = field(default_factory=dict[str, Entry])


_SEAL = TypeAdapter(Seal)


def begin(run: Path, base: Path, verify: bool = False) -> None:
    """Seal the base model of a run that starts or resumes. Raises ParetuneError when the base has changed.

    The other files are unsealed until the run is finished: the manifests of the stages check their outputs,
    and everything derived from them is made again. Only timing.jsonl, which no stage makes, is checked here.
    """
    seal = read_seal(run)
    if seal is not None:
        _check_base(seal, base, run, verify)
        _check_files(run, {n: e for n, e in seal.files.items() if n == "timing.jsonl"}, (), verify)
    kept = seal.base if seal is not None else {}
    names = sorted(p.relative_to(base).as_posix() for p in base.rglob("*") if _of_base(p, base))
    _write(run, Seal({name: _entry(base / name, kept.get(name)) for name in names}))


def finish(run: Path) -> None:
    """Seal a finished run."""
    begun = read_seal(run) or Seal()
    _write(run, Seal(begun.base, {name: _entry(run / name) for name in sorted(_recorded(run))}))


def check_run(run: Path, verify: bool = False, needed: Sequence[str] = (), base: Path | None = None) -> None:
    """Raise ParetuneError for the first file of the run that differs from its record.

    Args:
        run: the run's folder.
        verify: hash every file, and refuse a run without a seal.
        needed: names of files and folders that must exist; other files may have been removed.
        base: the folder of the base model, if that is to be checked as well.
    """
    seal = read_seal(run)
    if seal is None or not seal.files:
        if verify:
            raise ParetuneError(
                f"{run} is not sealed (it is not finished, or of an earlier version): nothing to verify "
                f"it by; `paretune run ... --out {run} --resume` finishes and seals it"
            )
        return
    _check_files(run, seal.files, needed, verify)
    if base is not None:
        _check_base(seal, base, run, verify)


def check_adapter(folder: Path, verify: bool = False) -> None:
    """Check an adapter's folder by its manifest, and by the seal of the run if it is part of one."""
    if os.path.lexists(folder / MANIFEST):
        for name, expected in read_manifest(folder).get("files", {}).items():
            if fault := fault_of(folder / name, expected):
                raise ParetuneError(f"{folder / name} {fault}; make it again, or take another copy")
    inside = real(folder)
    for run in list(inside.parents)[:4]:  # round-1/experts/REWARD is the deepest
        if os.path.lexists(run / SEAL):
            place = inside.relative_to(run).as_posix() + "/"
            seal = read_seal(run) or Seal()
            _check_files(run, {n: e for n, e in seal.files.items() if n.startswith(place)}, (), verify)
            return


def read_seal(run: Path) -> Seal | None:
    """The seal of a run, or None if it has none. Raises ParetuneError for a damaged seal."""
    path = run / SEAL
    if not os.path.lexists(path):
        return None
    damaged = ParetuneError(f"{path} is damaged; delete it, then `paretune run ... --resume` makes it again")
    try:
        table = parse_json(path.read_bytes())
        if not isinstance(table, dict) or table.pop("seal", None) != digest(table):
            raise damaged
        return _SEAL.validate_python(table)
    except (OSError, ValueError, ValidationError) as error:
        raise damaged from error


def _write(run: Path, seal: Seal) -> None:
    table: dict[str, Any] = asdict(seal)
    write_json(run / SEAL, {**table, "seal": digest(table)})


def _entry(path: Path, previous: Entry | None = None) -> Entry:
    """The entry of a file as it is now. `previous` is reused when its size and time are unchanged."""
    now = path.stat()
    if previous is not None and (now.st_size, now.st_mtime_ns) == (previous.size, previous.mtime_ns):
        return previous
    return Entry(now.st_size, now.st_mtime_ns, sha256(path))


def _recorded(run: Path) -> set[str]:
    """The names of all files of a run that other commands read."""
    names = {name for name in TOP_FILES if (run / name).is_file()}
    for tree in TREES:
        names |= {p.relative_to(run).as_posix() for p in (run / tree).rglob("*") if p.is_file()}
    for manifest in run.rglob(MANIFEST):
        place = manifest.parent.relative_to(run)
        if UNREAD & set(place.parts):
            continue
        table = read_manifest(manifest.parent)
        for name in (MANIFEST, *table.get("files", {}), *table.get("logs", {})):
            if (run / place / name).is_file():
                names.add((place / name).as_posix())
    return names


def _of_base(path: Path, base: Path) -> bool:
    inner = path.relative_to(base).parts
    return path.suffix in BASE_FILES and not any(p.startswith(".") for p in inner) and path.is_file()


def _check_files(
    run: Path, entries: Mapping[str, Entry], needed: Sequence[str], verify: bool
) -> None:
    for name, entry in entries.items():
        path = run / name
        if not os.path.lexists(path) and not any(f"{name}/".startswith(f"{n}/") for n in needed):
            continue
        if fault := entry.fault(path, verify):
            raise ParetuneError(f"{path} {fault}; {_remedy(run, name, entries)}")


def _remedy(run: Path, name: str, entries: Mapping[str, Entry]) -> str:
    """What the user can do to restore a file: repeat its stage, or the end of the run."""
    if name == "config.yaml":
        return "put it back as it was: it is the recipe of everything in the run"
    if name == "timing.jsonl":
        return "delete it and resume: only the recorded times are lost"
    for stage in Path(name).parents:
        if stage.name and (stage / MANIFEST).as_posix() in entries:
            return f"delete {run / stage} and `paretune run ... --out {run} --resume` makes it again"
    return f"`paretune run ... --out {run} --resume` makes it again"


def _check_base(seal: Seal, base: Path, run: Path, verify: bool) -> None:
    """Compare the base model with its record.

    A base that is not a folder is a hub id, which its name identifies; opening it reports what is missing.
    """
    if not base.is_dir():
        return
    for name, entry in seal.base.items():
        if fault := entry.fault(base / name, verify):
            raise ParetuneError(
                f"{base / name} {fault} since {run} was made with it; put the base model back as it was"
            )
