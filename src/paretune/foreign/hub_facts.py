"""What the hub says about a model: its size, licence, revision, and whether this login may have it.

What was asked is kept in the cache, so that `paretune plan`, which asks nobody, can tell sizes afterwards.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..types import ParetuneError
from .cache import cache_folder
from .hub_errors import refusal

WEIGHTS = (".safetensors",)
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5", ".pkl")


@dataclass(frozen=True)
class HubFacts:
    """Of one repository. size: bytes of what is downloaded of it. pickles: files of weights, if no others."""

    repo: str
    revision: str
    size: int
    licence: str
    gated: bool
    pickles: tuple[str, ...] = ()


def ask_hub(repo: str, dataset: bool = False, revision: str | None = None) -> HubFacts:
    """Ask the hub about a repository, and keep the answer. Downloads none of its files.

    revision: a commit, None for the newest. Raises ParetuneError where the hub does not answer, has no such
    repository or commit, or has it gated and this login may not have it.
    """
    from huggingface_hub import HfApi

    try:
        hub = HfApi()
        ask = hub.dataset_info if dataset else hub.model_info
        info: Any = ask(repo, revision=revision, files_metadata=True)
        if info.gated:
            hub.auth_check(repo, repo_type="dataset" if dataset else "model")
    except Exception as error:  # the library passes on any error of its layers
        told = refusal(error, repo)
        if told is None:
            first = (str(error).strip() or type(error).__name__).split("\n")[0]
            told = f"the hub does not tell about {repo}: {first}"
        raise ParetuneError(told) from error
    files = {f.rfilename: f.size or 0 for f in info.siblings or ()}
    wanted = wanted_files(files) if not dataset else dict(files)
    weights = [name for name in files if name.endswith(WEIGHTS)]
    pickles = [name for name in files if name.endswith(PICKLES)] if not weights and not dataset else []
    facts = HubFacts(
        repo, str(info.sha), sum(wanted.values()), _licence(info), bool(info.gated), tuple(sorted(pickles))
    )
    _keep(facts)
    return facts


def wanted_files(files: dict[str, int]) -> dict[str, int]:
    """Of a model's files with their sizes those that the libraries download: configurations and safetensors.

    Second copies in other precisions are left out, and in a pipeline the whole checkpoints beside its parts.
    """
    pipeline = "model_index.json" in files

    def wanted(name: str) -> bool:
        if name.endswith(WEIGHTS):
            return ".fp16" not in name and not (pipeline and "/" not in name)
        return name.endswith((".json", ".txt", ".model", ".jinja"))

    return {name: size for name, size in files.items() if wanted(name)}


def remembered(repo: str) -> HubFacts | None:
    """What the hub said about a repository when it was asked last; None where it never was."""
    try:
        told = json.loads(_file(repo).read_text(encoding="utf-8"))
        return HubFacts(**{**told, "pickles": tuple(told["pickles"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_cached(repo: str, dataset: bool = False, revision: str | None = None) -> bool:
    """Whether a commit of a repository, or for None any, is in the hub's cache on this machine."""
    snapshots = _cached(repo, dataset) / "snapshots"
    return any(any(kept.iterdir()) for kept in snapshots.glob(revision or "*") if kept.is_dir())


def cached_main(repo: str, dataset: bool = False) -> str | None:
    """The commit that was the newest of a repository when it was downloaded here; None where none was."""
    try:
        return (_cached(repo, dataset) / "refs" / "main").read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def _cached(repo: str, dataset: bool) -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE) / f"{'datasets' if dataset else 'models'}--{repo.replace('/', '--')}"




def _licence(info: Any) -> str:
    data = getattr(info, "card_data", None)
    found = data.get("license") if data is not None and hasattr(data, "get") else None
    named = data.get("license_name") if data is not None and hasattr(data, "get") else None
    told = named if found == "other" and named else found
    return ", ".join(told) if isinstance(told, list) else str(told or "not stated")


def _file(repo: str) -> Path:
    return cache_folder("hub") / f"{repo.replace('/', '--')}.json"


def _keep(facts: HubFacts) -> None:
    file = _file(facts.repo)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent)
        with os.fdopen(handle, "w") as stream:
            json.dump(asdict(facts), stream)
        Path(name).replace(file)
    except OSError:  # a machine where nothing can be kept asks again
        return
