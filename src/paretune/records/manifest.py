"""Manifests: a stage is done when its manifest is there and its hashes hold.

A manifest names the stage, its place below the run, a digest of everything that went in (`inputs`), and the
SHA-256 of every file that came out; its `seal` is a digest of all the rest of it. `finished` answers whether
a folder can be reused, and raises when it was damaged or belongs to something else: nothing is reused
silently. `seal` does the same for the run as a whole.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files import digest, disk_errors, read_json, sha256, write_json
from ..types import ParetuneError

MANIFEST = "manifest.json"
METRICS = "metrics.jsonl"  # a row an epoch of training


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
