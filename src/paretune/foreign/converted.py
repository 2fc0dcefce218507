"""Weights that are published as a pickle alone: fetched when asked, checked by hash, kept as safetensors.

A pickle can run code when it is read, so that no reward and no model opens one. `paretune fetch NAME`
downloads the published file, compares it with the hash below, reads it with torch's reader of plain tensors
(`weights_only`, which builds nothing else), and writes safetensors. Everything else reads those.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..types import ParetuneError
from .cache import cache_folder


@dataclass(frozen=True)
class Converted:
    """A published checkpoint of the hub.

    file: its weights, with their sha256 and their size in bytes. beside: more files that it needs.
    """

    repo: str
    revision: str
    file: str
    sha256: str
    size: int
    licence: str
    beside: tuple[str, ...] = ()


CONVERTED = {
    # github KwaiVGI/VideoAlign; the account was KwaiVGI before.
    "videoalign": Converted(
        "KlingTeam/VideoReward", "b8e421fe21aec3dde5f61fdd1dc44e1d603b9727", "checkpoint-11352/model.pth",
        "48375908e6112de9f0248402db156a23b480709a6960b091c598c6f4c88d21b9", 5_031_072_529, "Apache-2.0",
        ("model_config.json",),
    ),
}  # fmt: skip


def converted_folder(name: str) -> Path:
    """The folder with model.safetensors and the files beside it. Raises ParetuneError if it is not here."""
    folder = _place(name)
    if not (folder / "model.safetensors").is_file():
        raise ParetuneError(f"{name} is not on this machine; {to_convert(name)}")
    return folder


def is_converted(name: str) -> bool:
    """Whether the weights are on this machine, as safetensors."""
    return (_place(name) / "model.safetensors").is_file()


def to_convert(name: str) -> str:
    """What brings the weights here."""
    entry = CONVERTED[name]
    return (
        f"`paretune fetch {name}` downloads {entry.repo} from the hub ({entry.size / 1e9:.1f} GB, licence "
        f"{entry.licence}) and keeps it as safetensors"
    )


def convert(name: str, say: Callable[[str], None] = lambda line: None) -> Path:
    """Download a checkpoint and write it as safetensors, unless it is here. Returns the folder.

    Raises ParetuneError for a download that fails, other bytes than published, or more than tensors in it.
    """
    entry, folder = CONVERTED[name], _place(name)
    if is_converted(name):
        return folder
    say(f"downloading {entry.repo} ({entry.size / 1e9:.1f} GB, licence {entry.licence})")
    from huggingface_hub import hf_hub_download

    try:
        wanted = (entry.file, *entry.beside)
        got = {file: Path(hf_hub_download(entry.repo, file, revision=entry.revision)) for file in wanted}
    except Exception as error:  # the library raises exceptions of many kinds
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise ParetuneError(f"{name} cannot be downloaded from {entry.repo}: {reason}") from error
    check_hash(got[entry.file], entry.sha256, name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        write_safetensors(got[entry.file], made / "model.safetensors", name)
        for file in entry.beside:
            shutil.copyfile(got[file], made / Path(file).name)
        (made / "source.json").write_text(json.dumps(vars(entry), indent=1))
        shutil.rmtree(folder, ignore_errors=True)  # what a former attempt left
        made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    say(f"{got[entry.file]} is not needed any more; `hf cache` removes it")
    return folder


def check_hash(file: Path, sha256: str, name: str) -> None:
    """Raise ParetuneError if a file has other bytes than published."""
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256:
        raise ParetuneError(
            f"{name}: {file} has other bytes than published (sha256 {found[:12]}.., published "
            f"{sha256[:12]}..): it was changed on the hub or damaged on the way, and it is not read"
        )


def write_safetensors(source: Path, target: Path, name: str) -> None:
    """Write a file of plain tensors as safetensors. Raises ParetuneError where it holds anything else."""
    import torch
    from safetensors.torch import save_file

    try:
        state: Any = torch.load(source, map_location="cpu", weights_only=True, mmap=True)
        plain = isinstance(state, dict) and all(isinstance(value, torch.Tensor) for value in state.values())
    except Exception as error:  # whatever a damaged or malicious file makes of it
        raise ParetuneError(f"{name}: {source} holds more than tensors, and is not read") from error
    if not plain:
        raise ParetuneError(f"{name}: {source} holds more than tensors, and is not read")
    known: dict[int, str] = {}
    tensors = {}
    for key, value in state.items():  # a tensor under two names is written once for each
        shares = known.setdefault(value.data_ptr(), key) != key
        tensors[key] = value.clone() if shares else value.contiguous()
    save_file(tensors, target, {"format": "pt"})


def _place(name: str) -> Path:
    return cache_folder("converted") / f"{name}-{CONVERTED[name].sha256[:12]}"
