"""Prompt sets that are tables or lists: CSV and TSV with a header, and JSON in the form of HPSv2.

A row of a table is a record. Its prompt is in the named column, or in "prompt" or "Prompt" if none is named.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from paretune.types import ParetuneError, Prompt

from .records import as_prompt, plain_text, written


def read_table(text: str, where: str, column: str | None, tabs: bool) -> list[Prompt]:
    """The prompts of a table, one for each row, in order.

    Args:
        text: the file's content.
        where: its name, for messages.
        column: the heading of the prompts, or None.
        tabs: whether fields are separated by tabs, not commas.

    Raises:
        ParetuneError: with file and line, for a table that cannot be read.
    """
    lines = _tab_rows(text) if tabs else _comma_rows(text, where)
    _, header = next(lines)
    name = _column(header, column, where)
    prompts: list[Prompt] = []
    for number, row in lines:
        if len(row) != len(header):
            raise ParetuneError(f"{where}:{number}: {len(row)} fields under {len(header)} headings")
        record = {key: value for key, value in zip(header, row, strict=True) if value}
        plain_text(record.get(name, ""), f"{where}:{number}")
        prompts.append(as_prompt(record, f"{where}:{number}", name, Path(where).parent))
    return prompts


def _column(header: list[str], column: str | None, where: str) -> str:
    """The heading of the prompts."""
    for name in [column] if column else ["prompt", "Prompt"]:
        if name in header:
            if header.count(name) > 1:
                raise ParetuneError(f"{where}:1: the heading {name} is there twice")
            return name
    wanted = f"no column {column}" if column else "no column prompt or Prompt"
    names = ", ".join(header[:10])
    raise ParetuneError(f"{where}:1: {wanted}; name one of {names[:200]} as {where}:COLUMN")


def _tab_rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Split lines at tabs. Quotes belong to the text, except around a field that doubles quotes within."""
    for number, line in enumerate(text.split("\n"), start=1):
        yield number, [_unquoted(field) for field in line.removesuffix("\r").split("\t")]


def _unquoted(field: str) -> str:
    inner = field[1:-1]
    quoted = len(field) > 1 and field[0] == field[-1] == '"' and '""' in inner
    return inner.replace('""', '"') if quoted and '"' not in inner.replace('""', "") else field


def _comma_rows(text: str, where: str) -> Iterator[tuple[int, list[str]]]:
    """Rows, each with the number of the line that it begins on."""
    reader = csv.reader(io.StringIO(text), strict=True)
    begin = 1
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ParetuneError(f"{where}:{begin}: malformed CSV: {error}") from error
        yield begin, row
        begin = reader.line_num + 1


def read_list(value: Any, where: str, folder: Path) -> list[Prompt]:
    """A list of texts or records, or a mapping from style to such lists; the style is added to the record.

    folder: what the paths of input pictures are relative to.
    """
    if isinstance(value, dict):
        styles = cast("dict[str, Any]", value)
        if not all(isinstance(entries, list) for entries in styles.values()):
            raise ParetuneError(f"{where}: expected a list of prompts, or lists of them by their style")
        return [
            _entry(entry, f"{where}, {style[:80]!r}, entry {i}", {"style": style}, folder)
            for style, entries in styles.items()
            for i, entry in enumerate(entries, start=1)
        ]
    if not isinstance(value, list):
        raise ParetuneError(f"{where}: expected a list of prompts, or lists of them by their style")
    entries = enumerate(cast("list[Any]", value), start=1)
    return [_entry(entry, f"{where}, entry {i}", {}, folder) for i, entry in entries]


def _entry(entry: Any, where: str, more: dict[str, str], folder: Path) -> Prompt:
    if isinstance(entry, dict):
        return as_prompt({**more, **cast("dict[str, Any]", entry)}, where, folder=folder)
    if not isinstance(entry, str) or not entry.strip():
        raise ParetuneError(f"{where}: it is empty, or neither a text nor a record")
    return Prompt(written(entry, where).strip(), more)
