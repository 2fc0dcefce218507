"""Read prompt sets: text, JSON lines, JSON, CSV and TSV files, embedded sets, and datasets of the hub.

A .txt file has one prompt on each line. A .jsonl file has one record on each line, in GenEval's format or as
one of TRL's conversations (see `records`). `tables` reads .json, .csv and .tsv. The whole record becomes the
metadata of the prompt, which rewards read; its "image", if there is one, is the path of an input picture,
relative to the file. "FILE:COLUMN" names the column or key that holds the prompts. A name such as
"pictures/geneval-train" stands for a set of an embedded world, "hf:OWNER/NAME@SPLIT" for a dataset of the hub
(see `hub`), and "set:NAME@SPLIT" for a public prompt set (see `sets`).
"""

from __future__ import annotations

import difflib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paretune.types import ParetuneError, Prompt

from .hub import PREFIX, load_hub
from .records import as_prompt, plain_text
from .set_files import set_file
from .sets import PREFIX as SET
from .sets import split_count
from .tables import read_list, read_table

SUFFIXES = (".txt", ".jsonl", ".json", ".csv", ".tsv")
LARGEST = 2**30  # bytes of a file, which is read at once
LONGEST = 2**20  # bytes of a line, which is one prompt


def load_prompts(path: str | Path) -> tuple[Prompt, ...]:
    """The prompts of a file, or of a named set (see `prompt_set_names`), in order.

    Raises ParetuneError with file and line for anything that is not a prompt, and with the file if it is
    missing, empty or of an unknown kind.
    """
    if str(path).startswith(PREFIX):
        return load_hub(str(path))
    if str(path).startswith(SET):
        return _some(load_prompts(set_file(str(path))), split_count(str(path))[1])
    file, column = _split(str(path))
    place = _locate(file, str(path))
    kind = place.suffix.lower()
    if kind not in SUFFIXES:
        raise ParetuneError(f"prompt file {place}: expected {', '.join(SUFFIXES)}, not {place.suffix!r}")
    if column and kind in (".txt", ".json"):
        raise ParetuneError(f"prompt file {place}: a {kind} file has no columns to choose {column} from")
    try:
        if place.stat().st_size > LARGEST:
            raise ParetuneError(f"prompt file {place}: it has more than {LARGEST:,} bytes")
        raw = place.read_bytes()
    except OSError as error:
        raise ParetuneError(f"prompt file {place}: {error.strerror}") from error
    if not raw.removeprefix(b"\xef\xbb\xbf").strip():
        raise ParetuneError(f"prompt file {place} is empty")
    prompts = _read(raw.rstrip(), kind, str(place), column)
    if not prompts:
        raise ParetuneError(f"prompt file {place} holds no prompt")
    return tuple(prompts)


def spread(prompts: Sequence[Prompt], count: int) -> list[Prompt]:
    """`count` of some prompts, evenly spaced, or all: many files are sorted by what they ask for."""
    kept = min(count, len(prompts))
    return [prompts[i * len(prompts) // kept] for i in range(kept)]


def _some(prompts: tuple[Prompt, ...], count: int | None) -> tuple[Prompt, ...]:
    """So many of the prompts, always the same ones, in their order; all of them for None."""
    if count is None or count >= len(prompts):
        return prompts
    return tuple(prompts[i] for i in sorted(random.Random(0).sample(range(len(prompts)), count)))


def _read(raw: bytes, kind: str, place: str, column: str | None) -> list[Prompt]:
    if kind == ".json":
        value = _json(_decode(raw, place, LARGEST), place)
        return read_list(value, f"prompt file {place}", Path(place).parent)
    lines, folder = enumerate(raw.split(b"\n"), start=1), Path(place).parent
    if kind == ".txt":
        return [_read_text(line, f"{place}:{number}") for number, line in lines]
    if kind == ".jsonl":
        return [_read_record(line, f"{place}:{number}", column or "prompt", folder) for number, line in lines]
    text = "\n".join(_decode(line, f"{place}:{number}").removesuffix("\r") for number, line in lines)
    return read_table(text, place, column, tabs=kind == ".tsv")


def prompt_file(path: str | Path) -> Path | None:
    """The file that `load_prompts` would read; it may not exist. None for a dataset or a named set."""
    if str(path).startswith((PREFIX, SET)) or str(path) in prompt_set_names():
        return None
    return Path(_split(str(path))[0])


def _split(path: str) -> tuple[str, str | None]:
    """Split FILE:COLUMN. If a file has that whole name, it is meant."""
    file, colon, column = path.rpartition(":")
    if not colon or not column or Path(file).suffix.lower() not in SUFFIXES or _is_file(Path(path)):
        return path, None
    return file, column


def _is_file(place: Path) -> bool:
    try:
        return place.is_file()
    except OSError as error:  # a name that is too long, a folder that may not be read
        raise ParetuneError(f"prompt file {place}: {error.strerror}") from error


def prompt_set_names() -> tuple[str, ...]:
    """The names that `load_prompts` knows: "WORLD/SET"."""
    files = _worlds().glob("*/prompts/*.jsonl")
    return tuple(sorted(f"{p.parent.parent.name}/{p.stem}" for p in files))


def _worlds() -> Path:
    from paretune import worlds

    return Path(str(worlds.__file__)).parent


def _locate(file: str, path: str) -> Path:
    place = Path(file)
    if _is_file(place):
        return place
    names = prompt_set_names()
    if path in names:
        world, name = path.split("/")
        return _worlds() / world / "prompts" / f"{name}.jsonl"
    if place.is_dir():
        raise ParetuneError(f"prompt file {place} is a folder; name a file in it")
    near = difflib.get_close_matches(path, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ParetuneError(
        f"prompt file {file} does not exist{hint} (sets by name: {', '.join(names)})"
    )


def _decode(line: bytes, where: str, longest: int = LONGEST) -> str:
    if len(line) > longest:
        raise ParetuneError(f"{where}: the line has {len(line):,} bytes; {longest:,} are the most")
    try:
        return line.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ParetuneError(f"{where}: not UTF-8: {error.reason}") from error


def _read_text(line: bytes, where: str) -> Prompt:
    text = _decode(line, where).strip()
    if not text:
        raise ParetuneError(f"{where}: the line is empty, and every line is a prompt")
    return Prompt(plain_text(text, where))


def _read_record(line: bytes, where: str, column: str, folder: Path) -> Prompt:
    record = _json(_decode(line, where).strip(), where)
    if not isinstance(record, dict):
        raise ParetuneError(f'{where}: expected a JSON object with a "{column}"')
    return as_prompt(record, where, column, folder)


def _json(text: str, where: str) -> Any:
    """Parse JSON. Its numbers must be finite, its keys unique, and its characters complete."""
    try:
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
        if "\\u" in text:  # such an escape can be half of a surrogate pair
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except json.JSONDecodeError as error:
        reason = f"malformed JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        raise ParetuneError(f"{where}: {reason.replace('line 1, ', '')}") from error
    except RecursionError:
        raise ParetuneError(f"{where}: its lists are nested too deeply") from None
    except UnicodeEncodeError as error:
        raise ParetuneError(f"{where}: a text holds half of a character: {error.reason}") from error
    except ValueError as error:
        raise ParetuneError(f"{where}: {error}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:80]!r} is there twice")
    return record


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not a number in JSON")
