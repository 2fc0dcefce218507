"""`paretune status` and `paretune logs`: how far a run is, read from its folder."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..ops.distilling import DISTIL, Distilling
from ..planning.methods import build_plan
from ..planning.plan import Plan
from ..recipes import load_config
from ..records.manifest import MANIFEST, METRICS
from ..records.read import read_metrics
from ..records.seal import read_seal
from ..stages.claim import holder
from ..stages.distil import STUDENT
from ..stages.subjects import subjects_of
from ..stages.train_tokens import token_tasks
from ..types import ParetuneError
from .detach import LOG

LOOK = 1.0  # seconds between two looks of `follow`


@dataclass(frozen=True)
class Part:
    """One task of a run. state: finished, begun or waiting. done: of `of` epochs, steps or measurements."""

    folder: str
    state: str
    done: int
    of: int


@dataclass(frozen=True)
class Status:
    """state: working, finished or stopped. process: that works, on its machine; None where none does."""

    state: str
    process: str | None
    parts: tuple[Part, ...]


def status(run: Path) -> Status:
    """How far a run is. Raises ParetuneError where the folder holds none."""
    if not (run / "config.yaml").is_file():
        raise ParetuneError(f"{run} holds no run: config.yaml is missing")
    config = load_config(run / "config.yaml")
    plan = build_plan(config)
    parts = [_part(run, folder, epochs) for folder, epochs in _experts(plan).items()]
    students = [r for method in plan.methods for r in method.rounds if r.reduce == DISTIL]
    lessons = Distilling.of(config.reduce.options).steps if students else 0
    parts += [_part(run, round_.beside(STUDENT), lessons) for round_ in students]
    steps = config.tokens.steps + config.tokens.options.reinforce if config.tokens else 0
    parts += [_part(run, task.folder, steps) for task in token_tasks(config, plan)]
    parts += [_part(run, subject.folder, 1) for subject in subjects_of(config, plan)]
    process, seal = holder(run), read_seal(run)
    finished = process is None and seal is not None and bool(seal.files)
    state = "working" if process else "finished" if finished else "stopped"
    return Status(state, process, tuple(parts))


def _experts(plan: Plan) -> dict[str, int]:
    """Folder -> epochs of every expert, in the order in which they are trained."""
    rounds = [round_ for method in plan.methods for round_ in method.rounds]
    return {task.folder: task.epochs for round_ in rounds for task in round_.tasks}


def _part(run: Path, folder: str, of: int) -> Part:
    if (run / folder / MANIFEST).is_file():
        return Part(folder, "finished", of, of)
    rows = _rows(run / folder)
    if not rows:
        return Part(folder, "begun" if (run / folder).is_dir() else "waiting", 0, of)
    return Part(folder, "begun", int(rows[-1].get("update", 0)), of)


def _rows(folder: Path) -> list[dict[str, Any]]:
    return read_metrics(folder / METRICS) if (folder / METRICS).is_file() else []


def logs(run: Path, expert: str, follow: bool = False) -> Iterator[dict[str, Any]]:
    """The metrics of an expert's training: a row an epoch, after what the run's log says of its workers.

    Args:
        run: the run's folder.
        expert: the folder of an expert below it, or a reward's name: its expert that is at work, else that
            of the last round that has begun. A baseline's comes where there is no round.
        follow: wait for further rows until the expert is finished or no process works on the run.
    """
    folder = _folder_of(run, expert)
    yield from _notices(run, folder)
    told = 0
    while True:
        ended = (run / folder / MANIFEST).is_file() or holder(run) is None
        rows = _rows(run / folder)
        yield from rows[told:]
        told = max(told, len(rows))
        if ended or not follow:
            return
        time.sleep(LOOK)


def _folder_of(run: Path, expert: str) -> str:
    parts = [part for part in status(run).parts if not part.folder.startswith("evaluation/")]
    named = [p for p in parts if p.folder == expert.rstrip("/") or p.folder.rpartition("/")[2] == expert]
    if not named:
        known = ", ".join(dict.fromkeys(p.folder.rpartition("/")[2] for p in parts))
        raise ParetuneError(f"{run} trains no {expert}; it trains {known}, or give a folder such as "
                            f"{parts[0].folder}")  # fmt: skip
    begun = [part for part in named if part.state != "waiting"]
    working = [part for part in begun if part.state != "finished"]
    rounds = [part for part in begun if part.folder.startswith("round-")]
    return (working or rounds or begun or named)[-1].folder


def _notices(run: Path, folder: str) -> Iterator[dict[str, Any]]:
    """The lines of the run's log that name the expert's folder and are no progress."""
    if (run / LOG).is_file():
        for line in (run / LOG).read_text(errors="replace").splitlines():
            if line.startswith('{"notice"') and f"{folder} " in line:
                yield json.loads(line)
