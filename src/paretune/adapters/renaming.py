"""Renaming of modules, for adapters that have different names for the modules of one model.

Libraries sometimes rename parts of their models (`model.layers` became `model.language_model.layers` in
transformers). Adapters that were saved before and after such a change name the same modules differently.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..types import ParetuneError
from .keys import Contents, Factors
from .parts import PAIR, is_pair, part_of
from .read import AdapterFile


@dataclass(frozen=True)
class Rename:
    """The rule OLD=NEW; both are sequences of whole parts between dots.

    "" for OLD adds NEW at the front; "" for NEW removes OLD.
    """

    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.old}={self.new}"

    def __call__(self, name: str) -> str:
        """The name with its first OLD replaced; a name that contains NEW already is returned unchanged."""
        dotted = f".{name}."
        old, new = (f".{run}." if run else "." for run in (self.old, self.new))
        if old not in dotted or (old in new and new in dotted):
            return name
        return dotted.replace(old, new, 1).strip(".") or name


def read_renames(items: Sequence[str]) -> list[Rename]:
    """Rules from command-line arguments such as "model.layers=model.language_model.layers"."""
    renames = []
    for item in items:
        old, mark, new = item.partition("=")
        old, new = old.strip("."), new.strip(".")
        if not mark or old == new or "=" in new:
            raise ParetuneError(
                f"--rename wants OLD=NEW, such as model.layers=model.language_model.layers, not {item!r}"
            )
        renames.append(Rename(old, new))
    return renames


def renamed(adapters: Sequence[AdapterFile], renames: Sequence[Rename]) -> list[AdapterFile]:
    """The adapters with renamed modules. Raises ParetuneError for a rule that changes no name."""
    current = list(adapters)
    for rename in renames:
        before, current = current, [_renamed(adapter, rename) for adapter in current]
        if all(x.keys() == y.keys() for x, y in zip(before, current, strict=True)):
            some = next(iter(before[0]), "none")
            raise ParetuneError(f"--rename {rename} changes no module's name; they are called like {some}")
    return current


def _renamed(adapter: AdapterFile, rename: Rename) -> AdapterFile:
    modules = {rename(name): factors for name, factors in adapter.contents.modules.items()}
    whole = {rename(name): stored for name, stored in adapter.contents.whole.items()}
    if len(modules) < len(adapter.contents.modules) or len(whole) < len(adapter.contents.whole):
        raise ParetuneError(f"--rename {rename} gives two modules of {adapter.path} one name")
    return replace(adapter, contents=Contents(modules, whole, adapter.component))


def divided(adapter: AdapterFile) -> dict[str, AdapterFile]:
    """The folder in the pipeline -> its adapter, for an adapter of two transformers; else {"": adapter}."""
    if not is_pair(adapter):
        return {"": adapter}
    parts: dict[str, dict[str, Factors]] = {}
    for name, factors in adapter.contents.modules.items():
        part = part_of(name)
        parts.setdefault(PAIR[part], {})[name.removeprefix(f"{part}.")] = factors
    return {
        part: replace(adapter, contents=replace(adapter.contents, modules=modules))
        for part, modules in parts.items()
    }


def alias(theirs: Iterable[str], ours: Iterable[str], inserted_only: bool = True) -> Rename | None:
    """The first of `aliases`, or None."""
    return next(iter(aliases(theirs, ours, inserted_only)), None)


def aliases(theirs: Iterable[str], ours: Iterable[str], inserted_only: bool = True) -> list[Rename]:
    """The rules that turn the most names of `theirs` into names of `ours`; none if they turn less than half.

    There are several where names fit two parts of a model, such as an encoder and a decoder.

    Args:
        theirs: names to rename.
        ours: the names to reach.
        inserted_only: consider only names that differ by additional parts at one position (a prefix or an
            infix); otherwise also names with different beginnings. Numbers are never renamed: blocks.0.q and
            blocks.1.q are two modules.
    """
    theirs, ours = list(theirs), list(ours)
    ends: dict[str, list[str]] = {}
    for name in ours:
        parts = name.split(".")
        for i in range(len(parts)):
            ends.setdefault(".".join(parts[i:]), []).append(name)
    count: Counter[Rename] = Counter()
    for name in theirs:
        parts = name.split(".")
        common = next((e for i in range(len(parts)) if (e := ".".join(parts[i:])) in ends), None)
        rules = {_rule(name, other, inserted_only) for other in ends[common][:8]} if common else set()
        count.update(rule for rule in rules if rule is not None)
    most = max(count.values(), default=0)
    if not most or 2 * most < min(len(theirs), len(ours)):
        return []
    return sorted((rule for rule, times in count.items() if times == most), key=str)


def _rule(name: str, other: str, inserted_only: bool) -> Rename | None:
    """The rule that turns one name into the other, with the next part so that it matches at one position."""
    a, b = name.split("."), other.split(".")
    behind = 0
    while behind < min(len(a), len(b)) and a[-1 - behind] == b[-1 - behind]:
        behind += 1
    before = 0
    while before < min(len(a), len(b)) - behind and a[before] == b[before]:
        before += 1
    x, y = a[before : len(a) - behind], b[before : len(b) - behind]
    if all(part.isdigit() for part in [*x, *y]) or behind == 0:
        return None
    if x and y and (inserted_only or before or behind < 2 or a[-behind].isdigit()):
        return None
    if not before:
        return Rename(".".join(x), ".".join(y))
    context = a[len(a) - behind]
    return Rename(".".join([*a[:before], *x, context]), ".".join([*b[:before], *y, context]))
