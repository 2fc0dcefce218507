"""What each of N devices sends, and how long it works, when N train N experts or one policy together."""

from __future__ import annotations

from pathlib import Path

from ..adapters.store import WEIGHTS
from ..adapters.whole import whole_weights
from ..models.weighting import FILE
from ..planning.plan import JOINT_METHODS, ExpertTask, MethodPlan, Plan
from ..records.manifest import MANIFEST, METRICS, read_manifest
from ..records.read import read_metrics
from .distil import STUDENT


def exchanged(plan: Plan, run_folder: Path, each: int = 1) -> dict[str, int]:
    """Method -> the bytes that one device sends in the whole training.

    A device that trains an expert sends its adapter once a round. Devices that train one policy together send
    the gradient of its adapter at every update that they made. Both are as large as the adapter's file, and
    that of an embedding of weights beside it. Methods without their files are left out, and all where `each`
    expert has several devices: these exchange gradients too.
    """
    sent = {}
    for method in plan.methods if each == 1 else ():
        folders = [run_folder / round_.tasks[0].folder for round_ in method.rounds]
        files = [folder / (whole_weights(folder) or WEIGHTS) for folder in folders]
        if all(file.is_file() for file in files):
            beside = run_folder / method.weighted / FILE if method.weighted else None
            also = beside.stat().st_size if beside and beside.is_file() else 0
            sizes = [file.stat().st_size + also for file in files]
            made = sizes[0] * _updates(folders[0], method) if method.name in JOINT_METHODS else sum(sizes)
            sent[method.name] = made
    return sent


def _updates(folder: Path, method: MethodPlan) -> int:
    """The updates of a finished expert: fewer than planned where groups told nothing or it stopped early."""
    made = read_manifest(folder).get("updates") if (folder / MANIFEST).is_file() else None
    return method.updates if made is None else int(made)


def training_seconds(plan: Plan, run_folder: Path, devices: int, each: int = 1) -> dict[str, float]:
    """Method -> the seconds of its training on N devices, by the epochs that this run measured.

    The experts of a round train side by side, so the slowest counts; a student that is distilled from them
    comes after them, on one device. A joint policy is taken to divide evenly over the devices, at no cost of
    its exchanges. Methods without metrics are left out, and all where `each` expert has several devices.
    """
    found = {}
    for method in plan.methods if each == 1 else ():
        rounds = [max(_seconds(method, task, run_folder) for task in r.tasks) for r in method.rounds]
        if all(rounds):
            share = devices if method.name in JOINT_METHODS else 1
            students = sum(_measured(run_folder / r.beside(STUDENT)) for r in method.rounds)
            found[method.name] = sum(rounds) / share + students
    return found


def _seconds(method: MethodPlan, task: ExpertTask, run_folder: Path) -> float:
    """The seconds of an expert's epochs, with those that it shares with another method's expert."""
    own = {t.folder for r in method.rounds for t in r.tasks}
    folders = [task.folder]
    if task.continues is not None and task.continues not in own:
        folders.append(task.continues)
    return sum(_measured(run_folder / folder) for folder in folders)


def _measured(folder: Path) -> float:
    """The seconds of all epochs or steps whose metrics a folder has."""
    return sum(float(row.get("seconds") or 0.0) for row in read_metrics(folder / METRICS))
