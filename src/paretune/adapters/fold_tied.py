"""Folding into a base with tied weights: one weight under two names, of the embedding and of the head.

peft changes only the module that it adapts, so a change of one of the two names unties them: the folded base
stores both, and its configuration says so. They stay tied if both get the same change, as with peft's
`ensure_weight_tying`.
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
    """The tied weights of the base. groups: the names of each. shared: name not stored -> stored name."""

    groups: tuple[tuple[str, ...], ...]
    shared: dict[str, str]


@dataclass(frozen=True)
class Parted:
    """The changes of a fold.

    changes: of stored tensors. added: tensors that are no longer shared. untied: whether any weight is.
    """

    changes: dict[str, Change]
    added: dict[str, Added]
    untied: bool


def stored_names(groups: Sequence[Sequence[str]], files: Sequence[TensorFile]) -> Tied:
    """The groups (see `Names.tied`) by the names in the base's files, which may lack an outer part."""
    keys = [key for file in files for key in file.entries]
    tied: list[tuple[str, ...]] = []
    shared: dict[str, str] = {}
    for group in groups:
        names = [_stored(name, keys) for name in group]
        present = [name for name in names if name in keys]
        if present:
            tied.append(tuple(dict.fromkeys(names)))
            shared |= {name: present[0] for name in names if name not in keys}
    return Tied(tuple(tied), shared)


def _stored(name: str, keys: Sequence[str]) -> str:
    """The key for a name of the class: the same, or the only key with its last two parts; else the name."""
    if name in keys:
        return name
    end = ".".join(name.rsplit(".", 2)[-2:])
    matches = [key for key in keys if key == end or key.endswith("." + end)]
    return matches[0] if len(matches) == 1 else name


def part(lora: AdapterFile, places: Mapping[str, Change], tied: Tied) -> Parted:
    """Decide for every tied weight that the adapter changes whether it stays tied.

    Args:
        lora: the adapter.
        places: see `fold_tensors.locate`.
        tied: the base's tied weights.
    """
    changes = {name: change for name, change in places.items() if name not in tied.shared}
    added: dict[str, Added] = {}
    untied = False
    for group in tied.groups:
        wanted = {name: places.get(name, Change()) for name in group}
        if not any(name in places for name in group):
            continue
        if lora.config.get("ensure_weight_tying"):
            # peft loads both names into one storage, so the values of the later name remain.
            last = [wanted[name] for name in group if name in places][-1]
            wanted = dict.fromkeys(group, last)
        first = wanted[group[0]]
        if all(_alike(lora, first, change) for change in wanted.values()):
            changes |= {name: first for name in group if name not in tied.shared}
            continue
        if len(group) > 2:
            name = next(name for name in group if name in places)
            raise ParetuneError(
                f"{lora.path} changes {name} alone, shared by {len(group)} weights of the base: fold it "
                "with peft (merge_and_unload)"
            )
        added |= {n: Added(tied.shared[n], wanted[n]) for n in group if n in tied.shared}
        untied = True
    return Parted(changes, added, untied)


def _alike(lora: AdapterFile, x: Change, y: Change) -> bool:
    """Whether two changes give the same weight."""
    if x == y:
        return True
    if x.module is not None or y.module is not None or x.whole is None or y.whole is None:
        return False
    return torch.equal(lora.file.read(x.whole), lora.file.read(y.whole))


def record(folder: Path, parted: Parted, files: Sequence[TensorFile]) -> None:
    """Write into the new folder's configuration and weight index which tensors are no longer tied."""
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
