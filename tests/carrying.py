"""An executor that carries every task to another folder and back, as `ray` does, but in this process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paretune.executors.base import Movable
from paretune.executors.ray.parcels import Packer, Unpacked, run_unpacked, unpack
from paretune.executors.ray.watching import Watch, put
from tests.executing import InThisProcess


class Carrying(InThisProcess):
    """home: the folder that stands for the other machine. sent, brought: names of files, task by task."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.sent: dict[str, set[str]] = {}
        self.brought: dict[str, set[str]] = {}

    def map(self, function: Any, tasks: Sequence[Any], report: Any) -> list[Any]:
        return [self._one(function, task, report) for task in tasks]

    def _one(self, function: Any, task: Any, report: Any) -> Any:
        assert isinstance(task, Movable)
        luggage, cwd = task.luggage(), os.getcwd()
        parcel = Packer(lambda data: data).pack(function, task, sees_root=False)
        root = unpack(parcel, self.home, lambda data: data, sees_root=False)
        assert root is not None
        watch = Watch(root / luggage.writes)
        brought: set[str] = set()

        def bring() -> None:
            changes = watch.look()
            brought.update(changes.files)
            put(luggage.root / luggage.writes, changes)

        def told(event: Any) -> None:
            bring()
            report(event)

        try:
            result = run_unpacked(Unpacked(parcel, self.home, root), told, lambda: False, ("cpu",))
        finally:
            os.chdir(cwd)
        bring()
        names = (os.path.relpath(s.name, luggage.root.absolute()) for s in parcel.run)
        self.sent[task.title] = {*names, *(s.name for s in parcel.files)}
        self.brought[task.title] = brought
        return result
