"""One seal over what a run recorded: RUN/seal.json, which every command that reads a run checks first.

It holds the size, the time and the SHA-256 of each file that other commands read, and of the base model's.
A file of the same size and time is trusted, any other is hashed, and `--verify` hashes all: a run that was
copied goes on. A run in progress has the seal of its base alone, and runs of versions that wrote none are
read unsealed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ..files import digest, parse_json, sha256, write_json
from ..types import ParetuneError
from .manifest import MANIFEST, fault_of, read_manifest

SEAL = "seal.json"
# Of the run's own folder: what is made at its end, and what it is made by.
OWN = (
    "config.yaml", "plan.json", "environment.json", "timing.jsonl", "evaluation.jsonl", "summary.json",
)  # fmt: skip
TREES = ("samples", "final/tokens")  # folders that are sealed whole
UNREAD = {"checkpoints", "teacher"}  # folders of training alone, which may be removed to free the disk
BASE_FILES = {".safetensors", ".json", ".txt", ".model", ".jinja"}


@dataclass(frozen=True)
class Entry:
    """A sealed file."""

    size: int
    mtime_ns: int
    sha256: str

    def fault(self, path: Path, verify: bool) -> str | None:
        """What is wrong with the file now, in words; None if nothing is."""
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
    """base: the files of the base model, below its folder. files: those of the run; none before its end."""

    base: Mapping[str, Entry] = field(default_factory=dict[str, Entry])
    files: Mapping[str, Entry] = field(default_factory=dict[str, Entry])


_SEAL = TypeAdapter(Seal)


def begin(run: Path, base: Path, verify: bool = False) -> None:
    """Seal the base for a run that begins or goes on. Raises ParetuneError when it is another than before.

    From here to the end the rest is unsealed: stages are checked by their own manifests, and what is
    made of them is made again. Only what no stage makes is checked here.
    """
    seal = read_seal(run)
    if seal is not None:
        _check_base(seal, base, run, verify)
        _check_files(run, {n: e for n, e in seal.files.items() if n == "timing.jsonl"}, (), verify)
    kept = seal.base if seal is not None else {}
    names = sorted(p.relative_to(base).as_posix() for p in base.rglob("*") if _of_base(p, base))
    _write(run, Seal({name: _entry(base / name, kept.get(name)) for name in names}))


def finish(run: Path) -> None:
    """Seal a run that is whole."""
    begun = read_seal(run) or Seal()
    _write(run, Seal(begun.base, {name: _entry(run / name) for name in sorted(_recorded(run))}))


def check_run(run: Path, verify: bool = False, needed: Sequence[str] = (), base: Path | None = None) -> None:
    """Raise ParetuneError, one line, for the first file of the run that is not as it was recorded.

    needed: names, of folders too, that must be there; other files may have been removed. base: the folder
    of the base model, where that is read as well. verify: hash every file, and refuse an unsealed run.
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
    """Check an adapter's folder by its manifest, and by the seal of the run that it lies in, if it does."""
    if os.path.lexists(folder / MANIFEST):
        for name, expected in read_manifest(folder).get("files", {}).items():
            if fault := fault_of(folder / name, expected):
                raise ParetuneError(f"{folder / name} {fault}; make it again, or take another copy")
    inside = folder.resolve()
    for run in list(inside.parents)[:4]:  # round-1/experts/REWARD is the deepest
        if os.path.lexists(run / SEAL):
            place = inside.relative_to(run).as_posix() + "/"
            seal = read_seal(run) or Seal()
            _check_files(run, {n: e for n, e in seal.files.items() if n.startswith(place)}, (), verify)
            return


def read_seal(run: Path) -> Seal | None:
    """A run's seal; None where it has none. Raises ParetuneError for a damaged one."""
    path = run / SEAL
    if not os.path.lexists(path):
        return None
    told = ParetuneError(f"{path} is damaged; delete it, then `paretune run ... --resume` makes it again")
    try:
        table = parse_json(path.read_bytes())
        if not isinstance(table, dict) or table.pop("seal", None) != digest(table):
            raise told
        return _SEAL.validate_python(table)
    except (OSError, ValueError, ValidationError) as error:
        raise told from error


def _write(run: Path, seal: Seal) -> None:
    table: dict[str, Any] = asdict(seal)
    write_json(run / SEAL, {**table, "seal": digest(table)})


def _entry(path: Path, known: Entry | None = None) -> Entry:
    """What a file is now. known: of before, whose hash is taken where size and time are still its."""
    now = path.stat()
    if known is not None and (now.st_size, now.st_mtime_ns) == (known.size, known.mtime_ns):
        return known
    return Entry(now.st_size, now.st_mtime_ns, sha256(path))


def _recorded(run: Path) -> set[str]:
    """Names of all files of a run that other commands read."""
    found = {name for name in OWN if (run / name).is_file()}
    for tree in TREES:
        found |= {p.relative_to(run).as_posix() for p in (run / tree).rglob("*") if p.is_file()}
    for manifest in run.rglob(MANIFEST):
        place = manifest.parent.relative_to(run)
        if UNREAD & set(place.parts):
            continue
        table = read_manifest(manifest.parent)
        for name in (MANIFEST, *table.get("files", {}), *table.get("logs", {})):
            if (run / place / name).is_file():
                found.add((place / name).as_posix())
    return found


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
    """What makes a file again: its stage, or the end of the run."""
    if name == "config.yaml":
        return "put it back as it was: it is the recipe of all that lies there"
    if name == "timing.jsonl":
        return "delete it and resume: only the times told are lost"
    for stage in Path(name).parents:
        if stage.name and (stage / MANIFEST).as_posix() in entries:
            return f"delete {run / stage} and `paretune run ... --out {run} --resume` makes it again"
    return f"`paretune run ... --out {run} --resume` makes it again"


def _check_base(seal: Seal, base: Path, run: Path, verify: bool) -> None:
    """A base that is no folder here is a hub's, which its name stands for, or told of by who opens it."""
    if not base.is_dir():
        return
    for name, entry in seal.base.items():
        if fault := entry.fault(base / name, verify):
            raise ParetuneError(
                f"{base / name} {fault} since {run} was made with it; put the base model back as it was"
            )
