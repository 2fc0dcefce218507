"""Names of files and folders that come from outside: what a user typed, what a manifest or an index says.

A name that is joined to a folder must lie in it: "..", "/", a drive or a NUL would lead elsewhere.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from ..types import ParetuneError

_SAFE = re.compile(r"(?=.*[A-Za-z0-9])[A-Za-z0-9_-][A-Za-z0-9._-]*\Z")
LONGEST = 120  # of a folder's name: file systems take 255 bytes, and temporary names are longer
# What a run's own subjects are called: an adapter of that name would be taken for one of them.
_TAKEN = re.compile(r"(base|mapreduce|rewarded_soup|morl_dr?|sequential|selma|rate)\b|(round|expert|rate)-")


def is_plain(name: object) -> bool:
    """Whether this is the name of one file or folder, which stays where it is joined to."""
    return isinstance(name, str) and name not in {"", ".", ".."} and not re.search(r"[/\\\0]", name)


def folder_names(paths: Sequence[Path]) -> tuple[str, ...]:
    """A folder's name for each of a user's paths: safe, distinct, and the same whatever else is listed.

    A path whose own text is safe keeps it, its slashes turned to dashes; another gets what is legible of it
    and a digest of the place that it leads to. Raises ParetuneError for a place that is given twice.
    """
    seen: dict[Path, Path] = {}
    for path in paths:
        first = seen.setdefault(path.resolve(), path)
        if first is not path:
            raise ParetuneError(f"{first} and {path} are the same adapter; give it once")
    plain = [str(path).replace("/", "-") for path in paths]
    lowered = [name.lower() for name in plain]  # some file systems do not tell them apart
    return tuple(
        name
        if _SAFE.match(name) and len(name) <= LONGEST and not _TAKEN.match(name.lower())
        and lowered.count(name.lower()) == 1
        else _digested(path)
        for path, name in zip(paths, plain, strict=True)
    )  # fmt: skip


def _digested(path: Path) -> str:
    legible = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(p for p in path.parts if p not in {"/", ".."}))
    place = hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogateescape")).hexdigest()
    head = legible.strip("-.")[-60:].strip("-.") or "adapter"
    return f"adapter-{head}-{place[:10]}" if head != "adapter" else f"{head}-{place[:10]}"
