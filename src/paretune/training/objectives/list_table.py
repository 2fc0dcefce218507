"""The losses on lists of answers by their names in a recipe. Each class says its source and its formula."""

from __future__ import annotations

from .lists import ListLoss
from .preferences import PairLoss
from .table import OBJECTIVES, find_objective


def list_losses() -> dict[str, type[ListLoss]]:
    """Name -> loss, in the order of the table of objectives."""
    found = {name: find_objective(name) for name in OBJECTIVES}
    return {name: kind for name, kind in found.items() if issubclass(kind, ListLoss)}


def trl_losses() -> list[str]:
    """The names of TRL's own losses on preferences, in the order of the table of objectives."""
    return [name for name in OBJECTIVES if issubclass(find_objective(name), PairLoss)]
