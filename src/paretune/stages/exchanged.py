"""How much each device sends when N of them train N experts, or one policy together."""

from __future__ import annotations

from pathlib import Path

from ..adapters.store import WEIGHTS
from ..planning.plan import JOINT_METHODS, Plan


def exchanged(plan: Plan, run_folder: Path) -> dict[str, int]:
    """Method -> the bytes that one device sends in the whole training.

    A device that trains an expert sends its adapter once a round. Devices that train one policy together send
    the gradient of its adapter at every update. Both are as large as the adapter's file. Methods without
    their files are left out.
    """
    sent = {}
    for method in plan.methods:
        files = [run_folder / round_.tasks[0].folder / WEIGHTS for round_ in method.rounds]
        if all(file.is_file() for file in files):
            sizes = [file.stat().st_size for file in files]
            sent[method.name] = sizes[0] * method.updates if method.name in JOINT_METHODS else sum(sizes)
    return sent
