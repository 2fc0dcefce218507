"""The file of analyses: where it lies, and which of its analyses a new one replaces."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...data.remote import is_remote
from ...files import read_json, write_json
from ...ops.statistics import Figure
from ...report import write_report
from ...types import ParetuneError
from .options import Asked

Reports = dict[str, Mapping[str, Figure]]
NAME = "analysis.json"
UNSAID = ("--model", "--trust-rewards")  # the file lies with the model; trust changes no figure


def earlier(place: Path) -> dict[str, dict[str, Any]]:
    """The analyses that the file has already, {} without one. Raises ParetuneError if it is damaged."""
    if not place.exists():
        return {}
    with suppress(ParetuneError, AttributeError, TypeError, ValueError):
        return {key: dict(own) for key, own in read_json(place).get("analyses", {}).items()}
    raise ParetuneError(f"{place} is damaged: delete it, and run `paretune analyse` again")


def beside(file: str) -> Path:
    """Where the analysis of a file of preferences goes: beside it, or for one of the hub where one works."""
    if not is_remote(file):
        return Path(file).with_name(f"{Path(file).stem}-{NAME}")
    name = file.partition(":")[2].partition("@")[0].rstrip("/").rpartition("/")[2]
    return Path(f"{name}-{NAME}")


def write(
    place: Path, what: str, target: str, asked: Asked, made: tuple[Reports, dict[str, Any]]
) -> dict[str, Any]:
    """Write the figures beside those of the run's other analyses, in the place of one that asked the same."""
    figures = {report: {name: f.to_json() for name, f in found.items()} for report, found in made[0].items()}
    told = {option: _whole(value) for option, value in asked.given().items() if option not in UNSAID}
    if what == "pairs":
        told = {"file": _whole(target), **told}
    own = {"target": target, "asked": told, "reports": figures, **made[1]}
    before = earlier(place)
    if what == "safety" and "asked" not in before.get(what, {"asked": {}}):
        del before[what]  # of an older version, whose key did not name the prompts
    write_json(place, {"analyses": {**before, _key(what, told, before): own}})
    if place.name == NAME and (place.parent / "config.yaml").exists():
        write_report(place.parent)
    return {"what": what, "file": str(place), **own}


def _key(what: str, told: Mapping[str, Any], before: Mapping[str, Mapping[str, Any]]) -> str:
    """The name of an analysis in the file: "pairs held.jsonl, beta 0.5"; "(2)" where that is of another file.

    An analysis of an older file does not say what it was asked, and is replaced by one of its name.
    """
    words = [
        _short(value) if option in {"file", "--prompts"} else f"{option.lstrip('-')} {_short(value)}"
        for option, value in told.items()
    ]
    plain = key = " ".join([what, ", ".join(words)]).rstrip()
    number = 1
    while before.get(key, {}).get("asked", told) != told:
        number += 1
        key = f"{plain} ({number})"
    return key


def _whole(value: Any) -> Any:
    """A value of an option as JSON; of a file or folder the whole path, since others may have its name."""
    if not isinstance(value, str | Path):
        return value
    return str(Path(value).resolve()) if Path(value).exists() else str(value)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else Path(value).name
