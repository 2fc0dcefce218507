"""Read prompt sets: one prompt a line (.txt), or one JSON record a line (.jsonl, GenEval's
format).

A record needs a "prompt"; the whole record becomes the prompt's metadata, as rewards read it. A
name such as "pictures/geneval-train" stands for a set that comes with an embedded world, and
"hf:OWNER/NAME@SPLIT" for a dataset of the hub (see `hub`).
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

from paretune.types import ParetuneError, Prompt

from .hub import PREFIX, load_hub


def load_prompts(path: str | Path) -> tuple[Prompt, ...]:
    """The prompts of a .txt or .jsonl file, or of a set's name (see `prompt_set_names`), in order.

    Raises ParetuneError, naming file and line, for malformed JSON, a missing or empty prompt and
    bytes that are not UTF-8; naming the file, if it is missing, empty or of another kind.
    """
    if str(path).startswith(PREFIX):
        return load_hub(str(path))
    place = _locate(path)
    if place.suffix not in (".txt", ".jsonl"):
        raise ParetuneError(f"prompt file {place}: expected .txt or .jsonl, not {place.suffix!r}")
    try:
        raw = place.read_bytes()
    except OSError as error:
        raise ParetuneError(f"prompt file {place}: {error.strerror}") from error
    lines = raw.rstrip().split(b"\n")
    if lines == [b""]:
        raise ParetuneError(f"prompt file {place} is empty")
    read = _read_text if place.suffix == ".txt" else _read_record
    return tuple(read(line, f"{place}:{number}") for number, line in enumerate(lines, start=1))


def prompt_file(path: str | Path) -> Path | None:
    """The file that `load_prompts` would read, which may not exist; None for a dataset or a set's name."""
    return None if str(path).startswith(PREFIX) or str(path) in prompt_set_names() else Path(path)


def prompt_set_names() -> tuple[str, ...]:
    """Every name that `load_prompts` knows: "WORLD/SET"."""
    files = _worlds().glob("*/prompts/*.jsonl")
    return tuple(sorted(f"{p.parent.parent.name}/{p.stem}" for p in files))


def _worlds() -> Path:
    from paretune import worlds

    return Path(str(worlds.__file__)).parent


def _locate(path: str | Path) -> Path:
    place = Path(path)
    if place.is_file():
        return place
    names = prompt_set_names()
    if str(path) in names:
        world, name = str(path).split("/")
        return _worlds() / world / "prompts" / f"{name}.jsonl"
    near = difflib.get_close_matches(str(path), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ParetuneError(
        f"prompt file {path} does not exist{hint} (sets by name: {', '.join(names)})"
    )


def _decode(line: bytes, where: str) -> str:
    try:
        return line.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise ParetuneError(f"{where}: not UTF-8: {error.reason}") from error


def _read_text(line: bytes, where: str) -> Prompt:
    text = _decode(line, where)
    if not text:
        raise ParetuneError(f"{where}: the line is empty, and every line is a prompt")
    return Prompt(text)


def _read_record(line: bytes, where: str) -> Prompt:
    text = _decode(line, where)
    try:
        record: Any = json.loads(text)
    except json.JSONDecodeError as error:
        told = f"malformed JSON: {error.msg} (column {error.colno})"
        raise ParetuneError(f"{where}: {told}") from error
    if not isinstance(record, dict):
        raise ParetuneError(f"{where}: expected a JSON object with a \"prompt\"")
    prompt = record.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise ParetuneError(f"{where}: \"prompt\" is missing, empty or not a string")
    return Prompt(prompt, record)
