"""Find the object that "module:Name" or "file.py:Name" names.

A file may import its neighbours, by their own names (`import helper`), from its package
(`from . import helper`), or by the name of their folder (`from folder.helper import f`): when it is imported,
and later while it is asked something. Afterwards `sys.path` and `sys.modules` are as they were, so that the
neighbours of one file are never taken for those of another.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from paretune.types import ParetuneError

from .errors import one_line

PACKAGE = "paretune_reward_"  # begins the names under which files are kept in sys.modules
Modules = dict[str, ModuleType]


def resolve(path: str, kept: Modules | None = None) -> Any:
    """The object. Raises ParetuneError for a missing file, module or name, and for an import that fails.

    kept: see `neighbours`.
    """
    place, _, attribute = path.rpartition(":")
    if not place or not attribute:
        raise ParetuneError(f"reward {path!r}: write it as module:Name or file.py:Name")
    try:
        module = _import_file(place, kept) if place.endswith(".py") else importlib.import_module(place)
    except ParetuneError:
        raise
    except Exception as error:
        raise ParetuneError(f"reward {path!r}: cannot import {place}: {one_line(error)}") from error
    if not hasattr(module, attribute):
        near = difflib.get_close_matches(attribute, dir(module), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ParetuneError(f"reward {path!r}: {place} has no {attribute!r}{hint}")
    return getattr(module, attribute)


def _import_file(place: str, kept: Modules | None) -> ModuleType:
    path = Path(place)
    if not path.is_file():
        raise ParetuneError(f"reward file {place} does not exist")
    path = path.resolve()
    folder = _folder_package(path.parent)
    spec = importlib.util.spec_from_file_location(f"{folder}.{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ParetuneError(f"reward file {place} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle look a class up by its module's name.
    sys.modules[module.__name__] = module
    try:
        with neighbours(path.parent, kept):
            spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(module.__name__, None)
        raise
    return module


def _folder_package(folder: Path) -> str:
    """An empty package that stands for a folder, so that relative imports of a file in it work."""
    name = f"{PACKAGE}{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
    if name not in sys.modules:
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    return name


def files_of(file: Path) -> list[Path]:
    """A reward's file, and those beside it that it imports by name, and so on: what decides its scores."""
    root, found = file.resolve().parent, [file]
    for path in found:  # grows as it goes
        try:
            tree = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError):  # importing it will say so
            continue
        for name in sorted(_imported(tree)):
            parts = name.split(".")
            bases = [root, path.resolve().parent, *([root.parent] if parts[0] == root.name else [])]
            for place in (base.joinpath(*parts) for base in bases):
                for other in (place.with_suffix(".py"), place / "__init__.py"):
                    if other.is_file() and other.resolve() not in {p.resolve() for p in found}:
                        found.append(other)
    return found


def _imported(tree: ast.AST) -> set[str]:
    """The dotted names that a file imports, with those of the packages that they are in."""
    full: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            full |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = [node.module] if node.module else []
            full |= {".".join([*base, alias.name]) for alias in node.names}
    return {name.rsplit(".", cut)[0] for name in full for cut in range(name.count(".") + 1)}


@contextmanager
def neighbours(folder: Path, kept: Modules | None = None) -> Iterator[None]:
    """The modules of a folder, and those of the one above by the folder's name, can be imported.

    kept: the neighbours that one reward has imported: there again inside, and kept when they are taken out.
    """
    before = set(sys.modules)
    held: Modules = {} if kept is None else kept
    for name, module in held.items():
        sys.modules.setdefault(name, module)
    sys.path.insert(0, str(folder))
    sys.path.append(str(folder.parent))  # last: what else lies there must hide nothing that is installed
    importlib.invalidate_caches()
    try:
        yield
    finally:
        _drop(str(folder), range(len(sys.path)))
        _drop(str(folder.parent), range(len(sys.path) - 1, -1, -1))
        for name in set(sys.modules) - before:
            if not name.startswith(PACKAGE) and _lies_in(sys.modules[name], folder):
                held[name] = sys.modules.pop(name)


def _drop(entry: str, order: range) -> None:
    """Take back what was put into `sys.path`; the file may have added the same itself, or removed it."""
    for index in order:
        if sys.path[index] == entry:
            del sys.path[index]
            return


def _lies_in(module: Any, folder: Path) -> bool:
    """Whether a module, or a package without a file of its own, is of this folder."""
    files = [getattr(module, "__file__", None), *(getattr(module, "__path__", None) or ())]
    return any(str(file).startswith(f"{folder}{os.sep}") or str(file) == str(folder) for file in files)
