"""Ways in which files of a run are damaged, for the tests of those who read them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

Damage = Callable[[Path], None]


def flip(path: Path, place: float = 0.5) -> None:
    """One bit of the byte at this share of the file; an empty one gets a byte."""
    data = bytearray(path.read_bytes() or b"\0")
    data[min(int(len(data) * place), len(data) - 1)] ^= 1
    path.write_bytes(bytes(data))


def cut(path: Path) -> None:
    """The second half is lost."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def drop_line(path: Path) -> None:
    """The last line is lost, the others are whole."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) if len(lines) > 1 else b"")


def no_text(path: Path) -> None:
    """A byte that no UTF-8 has."""
    path.write_bytes(b"\xff" + path.read_bytes())


def folder(path: Path) -> None:
    """A folder where the file was."""
    path.unlink()
    path.mkdir()


def loop(path: Path) -> None:
    """A link to itself."""
    path.unlink()
    path.symlink_to(path.name)


DAMAGES: dict[str, Damage] = {
    "flip": flip,
    "cut": cut,
    "last line": drop_line,
    "empty": lambda path: path.write_bytes(b"") and None,
    "not UTF-8": no_text,
    "deep": lambda path: path.write_text("[" * 100_000) and None,
    "deep but whole": lambda path: path.write_text("[" * 400 + "]" * 400) and None,
    "null": lambda path: path.write_text("null\n") and None,
    "list": lambda path: path.write_text("[1, 2]\n") and None,
    "half a pair": lambda path: path.write_text('{"method": "\\ud800"}\n') and None,
    "folder": folder,
    "loop": loop,
    "delete": lambda path: path.unlink(),
}
# What is put in the place of a value of JSON.
WRONG = [None, True, -1, 1e300, 10**400, float("nan"), float("inf"), "", "\ud800", "../../x", [], {}, [[]]]


def set_value(path: Path, keys: list[str | int], value: object) -> None:
    """Replace one value of a JSON file; keys: the way to it."""
    table = json.loads(path.read_text())
    inner = table
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    path.write_text(json.dumps(table))


def swap(a: Path, b: Path) -> None:
    """Two folders change places."""
    aside = a.with_name("aside")
    a.rename(aside)
    b.rename(a)
    aside.rename(b)


def copy(run: Path, target: Path) -> Path:
    """A copy with other times, as a download or `cp -r` makes it."""
    shutil.copytree(run, target, copy_function=shutil.copyfile)
    return target
