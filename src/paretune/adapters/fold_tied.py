"""Folding into a base that keeps one weight under two names: its embedding, and the head tied to it.

peft changes the module that it adapts and leaves the other one as it was, so a change of one name parts
them: the folded base stores both and says so. They stay one where both are changed alike, which is what
peft's `ensure_weight_tying` does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..files import write_json
from ..types import ParetuneError
from .fold_tensors import Added, Change
from .read import AdapterFile
from .tensors import TensorFile
from .transformers_names import untie


@dataclass(frozen=True)
class Tied:
    """The base's shared weights. groups: names of one weight. shared: name not stored -> name stored."""

    groups: tuple[tuple[str, ...], ...]
    shared: dict[str, str]


@dataclass(frozen=True)
class Parted:
    """What a fold does. changes: to the tensors stored. added: those that are not shared any more."""

    changes: dict[str, Change]
    added: dict[str, Added]
    untied: bool


def stored_names(groups: Sequence[Sequence[str]], files: Sequence[TensorFile]) -> Tied:
    """The groups (see `Names.tied`) in the names of the base's files, which may lack an outer part."""
    keys = [key for file in files for key in file.entries]
    told: list[tuple[str, ...]] = []
    shared: dict[str, str] = {}
    for group in groups:
        names = [_stored(name, keys) for name in group]
        there = [name for name in names if name in keys]
        if there:
            told.append(tuple(dict.fromkeys(names)))
            shared |= {name: there[0] for name in names if name not in keys}
    return Tied(tuple(told), shared)


def _stored(name: str, keys: Sequence[str]) -> str:
    """The one key that is the class's name, or has its last two parts; the name itself where none does."""
    if name in keys:
        return name
    end = ".".join(name.rsplit(".", 2)[-2:])
    found = [key for key in keys if key == end or key.endswith("." + end)]
    return found[0] if len(found) == 1 else name


def part(lora: AdapterFile, places: Mapping[str, Change], tied: Tied) -> Parted:
    """Decide for every shared weight that the adapter changes whether it stays shared."""
    changes = {name: change for name, change in places.items() if name not in tied.shared}
    added: dict[str, Added] = {}
    untied = False
    for group in tied.groups:
        own = {name: places.get(name, Change()) for name in group}
        if not any(name in places for name in group):
            continue
        if lora.config.get("ensure_weight_tying"):
            # peft loads both names into one storage, the later one's values last.
            last = [own[name] for name in group if name in places][-1]
            own = dict.fromkeys(group, last)
        first = own[group[0]]
        if all(_alike(lora, first, change) for change in own.values()):
            changes |= {name: first for name in group if name not in tied.shared}
            continue
        if len(group) > 2:
            name = next(name for name in group if name in places)
            raise ParetuneError(
                f"{lora.path} changes {name} alone, shared by {len(group)} weights of the base: fold it "
                "with peft (merge_and_unload)"
            )
        added |= {n: Added(tied.shared[n], own[n]) for n in group if n in tied.shared}
        untied = True
    return Parted(changes, added, untied)


def _alike(lora: AdapterFile, x: Change, y: Change) -> bool:
    """Whether two changes leave the same weight."""
    if x == y:
        return True
    if x.module is not None or y.module is not None or x.whole is None or y.whole is None:
        return False
    return torch.equal(lora.file.read(x.whole), lora.file.read(y.whole))


def record(folder: Path, parted: Parted, files: Sequence[TensorFile]) -> None:
    """Say in the new folder's configuration and weight index what is stored apart now."""
    if not parted.untied:
        return
    untie(folder)
    for path in folder.glob("*.safetensors.index.json"):
        index = json.loads(path.read_text(encoding="utf-8"))
        for name, new in parted.added.items():
            file = next(file for file in files if new.source in file.entries)
            index["weight_map"][name] = file.path.name
            entry = file.entries[new.source]
            if isinstance(index.get("metadata"), dict) and "total_size" in index["metadata"]:
                index["metadata"]["total_size"] += entry.end - entry.start
        write_json(path, index)
