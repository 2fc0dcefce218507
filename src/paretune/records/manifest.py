"""Manifests: a stage is done when its manifest is there and its hashes hold.

A manifest names the stage, its folder below the run (`place`), a digest of all inputs (`inputs`), and the
SHA-256 of every output file; its `seal` is a digest of all other entries. `finished` says whether a folder
can be reused, and raises when it was damaged or belongs to something else: nothing is reused silently.
`records.seal` does the same for the run as a whole.
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
METRICS = "metrics.jsonl"  # one row per epoch of training


def write_manifest(
    folder: Path,
    stage: str,
    inputs: str,
    files: Sequence[str],
    logs: Sequence[str] = (),
    place: str = "",
    **facts: Any,
) -> dict[str, Any]:
    """Declare a stage finished. The manifest is written last, so its presence means that the stage is done.

    Args:
        folder: the stage's folder.
        stage: the name of the stage.
        inputs: a digest of everything that the stage depends on.
        files: the output files, as names below `folder`.
        logs: further files below `folder` that are sealed too if they exist.
        place: the folder's path below the run; `check_place` refuses the manifest in another folder.
        **facts: further entries of the manifest.

    Returns:
        The manifest without its seal.
    """
    manifest: dict[str, Any] = {"stage": stage, "inputs": inputs}
    if place:
        manifest["place"] = place
    with disk_errors(folder):  # another process may remove it meanwhile
        manifest["files"] = {name: sha256(folder / name) for name in files}
        if kept := [name for name in logs if (folder / name).is_file()]:
            manifest["logs"] = {name: sha256(folder / name) for name in kept}
    manifest |= facts
    write_json(folder / MANIFEST, {**manifest, "seal": digest(manifest)})
    return manifest


def below(folder: Path, name: object) -> Path:
    """The file that a manifest calls `name`. Raises ParetuneError for a name that leads out of its folder."""
    path = Path(name) if isinstance(name, str) and "\0" not in name else Path("/")
    if path.is_absolute() or ".." in path.parts:
        raise ParetuneError(f"{folder / MANIFEST} names {name!r}, which is no file of its folder; delete it")
    return folder / path


def read_manifest(folder: Path) -> dict[str, Any]:
    """A folder's manifest without its seal. Raises ParetuneError when the file was changed since.

    Earlier versions wrote manifests without a seal, which are read unchecked.
    """
    path = folder / MANIFEST
    manifest = read_json(path)
    damaged = ParetuneError(f"{path} was changed or damaged; delete {folder} and resume to make it again")
    if not isinstance(manifest, dict):
        raise damaged
    seal = manifest.pop("seal", None)
    if seal is not None and seal != digest(manifest):
        raise damaged
    if not all(isinstance(manifest.get(key, ""), str) for key in ("stage", "inputs", "place")):
        raise damaged
    if not all(_is_listing(manifest.get(key, {})) for key in ("files", "logs")):
        raise damaged
    return manifest


def _is_listing(value: Any) -> bool:
    """Whether a value maps names of files below a folder to their hashes."""
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(hashed, str) and "\0" not in name
        and not Path(name).is_absolute() and ".." not in Path(name).parts
        for name, hashed in value.items()
    )  # fmt: skip


def fault_of(path: Path, expected: str) -> str | None:
    """What is wrong with a file that should have the SHA-256 `expected`, in words; None if it is intact."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return "is no longer a file"
        return None if sha256(path) == expected else "was changed or damaged (its hash differs)"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def finished(folder: Path, stage: str, inputs: str) -> dict[str, Any] | None:
    """The manifest of a finished stage, or None when the stage is not finished.

    Args:
        folder: the stage's folder.
        stage: the name that the manifest must have.
        inputs: the digest of the inputs as they are now.

    Raises:
        ParetuneError: a file changed since, or the folder was made from other inputs.
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
    """Raise ParetuneError when a manifest was made for another folder of the run than the one it is in."""
    parts = Path(manifest.get("place", "")).parts
    if parts and folder.parts[-len(parts) :] != parts:
        raise ParetuneError(
            f"{folder} was made from other inputs: it is {manifest['place']} of a run; put it back, or "
            "delete it and resume to make it again"
        )


def files_digest(folder: Path) -> str:
    """One digest of the outputs of a finished stage, on which later stages depend."""
    return digest(read_manifest(folder)["files"])
