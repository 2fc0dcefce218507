"""`paretune prompts`: list the public prompt sets, or write one to a file that recipes read."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.prompts import load_prompts
from ..data.remote import is_named
from ..data.set_files import set_file, source_of
from ..data.sets import HUB_SETS, PREFIX, SETS, find_set
from ..files import check_new, write_json, write_text
from ..types import ParetuneError, Prompt


@dataclass(frozen=True)
class Listed:
    """One split of a set, for the table. size: bytes of the download, None where nobody here could look."""

    spec: str
    size: int | None
    licence: str
    source: str
    about: str


def listed() -> list[Listed]:
    """Every split of every public set. Nothing is downloaded."""
    rows = [
        Listed(f"{PREFIX}{name}@{split}", own.size(split), own.licence, own.splits[split][0].repo, own.about)
        for name, own in SETS.items() for split in own.splits
    ]  # fmt: skip
    for licence, about, splits in HUB_SETS.values():
        rows += [
            Listed(spec, None, licence, spec.removeprefix("hf:").partition("@")[0], about)
            for spec in splits.values()
        ]
    return rows


def resolved(name: str, split: str | None) -> str:
    """What `load_prompts` takes for a name of the table, a spec, or a file, and a split.

    Raises ParetuneError for an unknown name, or a name without the split that it needs.
    """
    if name in HUB_SETS:
        splits = HUB_SETS[name][2]
        if split not in splits:
            raise ParetuneError(f"prompt set {name}: give --split and one of {', '.join(splits)}")
        return splits[split]
    if name.startswith("hf:") or (Path(name).suffix and Path(name).exists()):
        if split and "@" in name:
            raise ParetuneError(f"{name} names its split already: leave --split out")
        return f"{name}@{split}" if split else name
    spec = f"{name.removeprefix(PREFIX)}@{split}" if split and "@" not in name else name.removeprefix(PREFIX)
    found, part = find_set(spec)
    if split and split != part:
        raise ParetuneError(f"{name} names another split than --split {split}")
    return f"{PREFIX}{found}@{part}"


def write_prompts(
    name: str,
    out: Path,
    split: str | None = None,
    limit: int = 0,
    seed: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Write a set as JSON Lines, and where it is from beside it, in FILE.source.json.

    limit: so many prompts, 0 for all: the first ones, or with a seed so many at random, in the set's order.
    Returns what is written beside the file. Raises ParetuneError where `out` exists or is no .jsonl file.
    """
    if out.suffix.lower() != ".jsonl":
        raise ParetuneError(f"--out {out}: prompts are written as JSON Lines; name a file .jsonl")
    if limit < 0:
        raise ParetuneError(f"--limit {limit}: a number of prompts, or 0 for all")
    beside = out.with_name(f"{out.name}.source.json")
    for file in (out, beside):
        check_new(file)
    spec = resolved(name, split)
    if spec.startswith(PREFIX):
        set_file(spec, say)
    prompts = load_prompts(spec)
    chosen = range(len(prompts))[: limit or None]
    if seed is not None and limit:
        chosen = sorted(random.Random(seed).sample(range(len(prompts)), min(limit, len(prompts))))
    rows = "".join(_row(prompts[i]) for i in chosen)
    told: dict[str, Any] = {
        "spec": spec, "prompts": len(chosen), "of": len(prompts), "limit": limit, "seed": seed,
        "sha256": hashlib.sha256(rows.encode()).hexdigest(), **origin(spec),
    }  # fmt: skip
    write_text(out, rows)
    write_json(beside, told)
    return told


def origin(spec: str) -> dict[str, Any]:
    """Licence, files and revisions of a set that was fetched, as far as they are known here."""
    if spec.startswith(PREFIX):
        own = source_of(spec)
        return {"licence": own["licence"], "files": own["files"]}
    for licence, _, splits in HUB_SETS.values():
        if spec in splits.values():
            return {"licence": licence, "revision": hub_revision(spec)}
    return {"licence": "not known here", "revision": hub_revision(spec)} if is_named(spec) else {}


def hub_revision(spec: str) -> str | None:
    """The commit of the hub's dataset that was read, where the hub tells it; None for a folder."""
    place = spec.removeprefix("hf:").partition("@")[0]
    if Path(place).exists():
        return None
    from huggingface_hub import dataset_info

    try:
        return dataset_info("/".join(place.split("/")[:2])).sha
    except Exception:  # no answer is no fault of the prompts, which are read by now
        return None


def _row(prompt: Prompt) -> str:
    record = {"prompt": str(prompt.text), **{k: v for k, v in prompt.metadata.items() if k != "prompt"}}
    return json.dumps(record, ensure_ascii=False) + "\n"
