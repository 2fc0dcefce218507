"""Names of files and folders that come from outside: typed by a user, or read from a manifest or an index.

A name that is joined to a folder must stay in it: "..", "/", a drive or a NUL would lead elsewhere.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from ..files import real
from ..types import ParetuneError

_SAFE = re.compile(r"(?=.*[A-Za-z0-9])[A-Za-z0-9_-][A-Za-z0-9._-]*\Z")
LONGEST = 120  # bytes of a folder's name: file systems take 255, and temporary names are longer
# Names of a run's models and folders: an adapter with such a name would be mistaken for one of them.
_RESERVED = re.compile(
    r"(base|mapreduce|rewarded_soup|morl_dr?|sequential|selma|conditioned|rate)\b|(round|expert|rate)-"
)


def is_plain(name: object) -> bool:
    """Whether this is the name of one file or folder that stays in the folder that it is joined to."""
    return isinstance(name, str) and name not in {"", ".", ".."} and not re.search(r"[/\\\0]", name)


def folder_names(paths: Sequence[Path]) -> tuple[str, ...]:
    """A safe and distinct folder name for each of a user's paths.

    A path whose text is safe keeps it, with dashes for slashes. Any other path gets its legible characters
    and a digest of the folder that it leads to, so that its name does not depend on the other paths. Raises
    ParetuneError when two paths lead to the same folder.
    """
    seen: dict[Path, Path] = {}
    for path in paths:
        first = seen.setdefault(real(path), path)
        if first is not path:
            raise ParetuneError(f"{first} and {path} are the same adapter; give it once")
    plain = [str(path).replace("/", "-") for path in paths]
    lowered = [name.lower() for name in plain]  # some file systems ignore case
    return tuple(
        name
        if _SAFE.match(name) and len(name) <= LONGEST and not _RESERVED.match(name.lower())
        and lowered.count(name.lower()) == 1
        else _digested(path)
        for path, name in zip(paths, plain, strict=True)
    )  # fmt: skip


def _digested(path: Path) -> str:
    legible = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(p for p in path.parts if p not in {"/", ".."}))
    hashed = hashlib.sha256(str(real(path)).encode("utf-8", "surrogateescape")).hexdigest()
    head = legible.strip("-.")[-60:].strip("-.") or "adapter"
    return f"adapter-{head}-{hashed[:10]}" if head != "adapter" else f"{head}-{hashed[:10]}"


def input_file(prompt_set: str, index: int) -> str:
    """The name, in samples/, of the input picture of a prompt whose samples are shown."""
    return f"{prompt_set}-{index:03d}-input.png"
