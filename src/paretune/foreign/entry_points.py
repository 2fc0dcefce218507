"""What other installed packages add to paretune, by entry points.

A package names what it adds in its pyproject.toml:

    [project.entry-points."paretune.rewards"]
    flatness = "my_reward:Flatness"

Its code runs when the name is used, and not before: installing the package is what permits it.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from ..types import ParetuneError


def added(group: str) -> dict[str, EntryPoint]:
    """Name -> entry point of a group, none of them loaded.

    Raises ParetuneError where two packages give one name to different things.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        first = found.setdefault(point.name, point)
        if first.value != point.value:
            raise ParetuneError(
                f"two installed packages add {point.name} to {group}, {first.value} and {point.value}: "
                "uninstall one of them"
            )
    return found


def load_added(what: str, point: EntryPoint) -> Any:
    """The object that an entry point names. what: begins the message, such as "objective".

    Raises ParetuneError, one line, where importing it fails in whatever way.
    """
    try:
        return point.load()
    except Exception as error:  # another package's code raises what it likes
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ParetuneError(f"{what} {point.name} ({point.value}) cannot be loaded: {reason}") from error
