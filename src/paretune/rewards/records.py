"""GenEval's records, as its own files and as datasets of the hub have them, read in one form.

A column of a dataset holds something for every row, so that records from there say `null` where GenEval's own
files leave a key out: null is absent, and so are an empty list, an empty text and pandas' NaN. Numbers may
have come as 2.0 or "2".
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paretune.types import ParetuneError, Prompt

RELATIONS = ("left of", "right of", "above", "below")
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Known:
    """What a detector can tell: what it never finds would be a score of 0 that nothing explains.

    is_class: whether it knows a class. classes: how a message calls those that it knows.
    """

    is_class: Callable[[str], bool]
    classes: str
    colors: Collection[str]


def geneval_record(record: Record) -> dict[str, Any]:
    """A record with lists `include` and `exclude`, and in their entries only what is said."""
    read = _present(record)
    for part in ("include", "exclude"):
        entries = read.setdefault(part, [])
        if _many(entries):
            read[part] = [_entry(e) if isinstance(e, Mapping) else e for e in entries]
    return read


def check_geneval(name: str, prompts: Sequence[Prompt], known: Known | None = None) -> None:
    """Raise ParetuneError for the first prompt whose record the reward `name` cannot score.

    known: what its detector knows, where one is there.
    """
    for prompt in prompts:
        record = geneval_record(prompt.metadata)
        if not record["include"]:
            raise ParetuneError(
                f"{name} needs a GenEval record with 'include', and the prompt {prompt.text!r} has none: "
                "use a .jsonl prompt file"
            )
        for part in ("include", "exclude"):
            wrong = _wrong(part, record[part], len(record["include"]))
            if wrong:
                raise ParetuneError(f"{name}: the record of the prompt {prompt.text!r} {wrong}")
        for entry in (*record["include"], *record["exclude"]):
            unknown = None if known is None else _unknown(entry, known)
            if unknown:
                raise ParetuneError(
                    f"{name}: the detector knows no {unknown[0]!r}, which the prompt {prompt.text!r} asks "
                    f"about; use {unknown[1]}"
                )


def _unknown(entry: Record, known: Known) -> tuple[str, str] | None:
    """A class or colour that the detector does not know, and what to use instead."""
    if not known.is_class(entry["class"]):
        return entry["class"], known.classes
    color = entry.get("color")
    if color is not None and color not in known.colors:
        return color, ", ".join(known.colors)
    return None


def _wrong(part: str, entries: Any, included: int) -> str | None:
    """What is wrong with one of a record's two lists, as the end of a sentence."""
    if not _many(entries):
        return f"has {part!r} that is no list"
    for number, entry in enumerate(entries):
        if not isinstance(entry, Mapping) or not isinstance(entry.get("class"), str):
            return f"has an entry of {part!r} without a class"
        count = entry.get("count")
        if not isinstance(count, int) or count < 1:
            return f"asks for {count!r} of {entry['class']!r} in {part!r}: a count from 1 up is needed"
        if not isinstance(entry.get("color", ""), str):
            return f"has a color of {entry['class']!r} that is no text"
        place = entry.get("position")
        if place is not None and not _is_place(place, included, number if part == "include" else -1):
            return (
                f"has a position of {entry['class']!r} that is not [relation, index of another entry], a "
                f"relation being one of {', '.join(RELATIONS)}"
            )
    return None


def _is_place(place: Any, included: int, own: int) -> bool:
    if not _many(place) or len(place) != 2 or place[0] not in RELATIONS:
        return False
    return isinstance(place[1], int) and 0 <= place[1] < included and place[1] != own


def _entry(entry: Record) -> dict[str, Any]:
    """An entry's own keys, its numbers as whole numbers."""
    read = _present(entry)
    if "count" in read:
        read["count"] = _whole(read["count"])
    place: Any = read.get("position")
    if _many(place) and len(place) == 2:
        read["position"] = [place[0], _whole(place[1])]
    return read


def _present(record: Record) -> dict[str, Any]:
    """Without what is null."""
    return {key: value for key, value in record.items() if not _absent(value)}


def _absent(value: Any) -> bool:
    if isinstance(value, float):
        return value != value
    return value is None or (isinstance(value, (str, list, tuple)) and len(value) == 0)


def _many(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _whole(value: Any) -> Any:
    """2.0 and "2" as 2; anything else as it is, for the check to name."""
    if isinstance(value, bool):
        return value
    try:
        return int(value) if float(value).is_integer() else value
    except (TypeError, ValueError, OverflowError):
        return value
