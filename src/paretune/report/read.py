"""Load the files of a run for its report. `Run.missing` lists what does not exist, for the page."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from paretune.files import real
from paretune.records.read import (
    read_diagnostics,
    read_evaluation,
    read_index,
    read_metrics,
    read_object,
    read_reliability,
    read_summary,
    read_value,
)
from paretune.types import ParetuneError

from ..records.labels import apart
from ..records.names import input_file, is_plain

Row = dict[str, Any]  # of evaluation.jsonl or metrics.jsonl
Summary = dict[str, Any]  # the content of summary.json
Diagnostics = dict[str, Any]  # the content of a diagnostics.json
T = TypeVar("T")


@dataclass(frozen=True)
class Sample:
    """The samples of one prompt. files: method -> file, of any kind. image: the hash of its input picture.

    input: the file of that picture, as far as it is there.
    """

    prompt_set: str
    index: int
    text: str
    files: dict[str, Path]
    image: str = ""
    input: Path | None = None


@dataclass
class Run:
    """The tables of a run. metrics: (stage, reward) -> rows, where a stage is `round-1`, .. or `soup`.

    reliability: of each scorer on the base's samples; runs of earlier versions have none.
    """

    name: str
    config: str = ""
    plan: Any = None
    environment: dict[str, Any] = field(default_factory=dict)
    metrics: dict[tuple[str, str], list[Row]] = field(default_factory=dict)
    diagnostics: dict[int, Diagnostics] = field(default_factory=dict)
    evaluation: list[Row] = field(default_factory=list)
    reliability: list[Row] = field(default_factory=list)
    summary: Summary = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    sample_methods: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def rewards(self) -> list[str]:
        """The trained rewards, in the summary's order, or else in the order of the experts' folders."""
        if self.summary:
            return list(self.summary["rewards"])
        return list(dict.fromkeys(reward for _, reward in self.metrics))


def read_run(folder: Path) -> Run:
    """Read every table in the folder of a run. Raises ParetuneError for a damaged file or a missing run."""
    known = ("config.yaml", "plan.json", "summary.json", "evaluation.jsonl")
    if not any((folder / name).exists() for name in known):
        raise ParetuneError(f"{folder} holds no run: none of {', '.join(known)} is there.")
    run = Run(name=real(folder).name)
    note = run.missing.append
    run.config = _read(folder / "config.yaml", _text, "", note)
    run.plan = _read(folder / "plan.json", read_value, None, note)
    run.environment = _read(folder / "environment.json", read_object, {}, note)
    run.summary = _read(folder / "summary.json", _summary, {}, note)
    rows = folder / "evaluation.jsonl"
    run.evaluation = _read(rows, lambda path: read_evaluation(path, _torn(path, note)), [], note)
    _name_apart(run)
    if os.path.lexists(steady := folder / "evaluation" / "base" / "reliability.json"):
        run.reliability = read_reliability(steady)
    for stage in _stages(folder):
        _read_stage(run, stage)
    if not run.metrics:
        note("no metrics.jsonl under round-K/experts/: no learning curves")
    if not run.diagnostics:
        note("no round-K/merged/diagnostics.json: no contraction and no cosines")
    _read_samples(run, folder / "samples")
    return run


def _name_apart(run: Run) -> None:
    """Rename scorers that have the same name, also in a run of an earlier version that did not do so."""
    rows = apart(run.evaluation)
    if rows != run.evaluation:
        run.evaluation = rows
        run.missing.append(
            "its summary takes a judge's scores and those of a reward of the same name together: "
            "`paretune run ... --resume` makes it again"
        )


def _read(path: Path, reader: Callable[[Path], T], default: T, note: Callable[[str], None]) -> T:
    if not os.path.lexists(path):
        note(f"{path.name} is not there")
        return default
    return reader(path)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ParetuneError(f"{path} is damaged: it is no text in UTF-8 ({error.reason})") from error
    except OSError as error:
        raise ParetuneError(f"{path} cannot be read: {error.strerror}") from error


def _summary(path: Path) -> Summary:
    summary = read_summary(path)
    for key in ("stderr", "judges", "higher_is_better", "ranges", "hypervolume", "timing", "budget"):
        summary.setdefault(key, {})
    summary.setdefault("rounds", [])
    return summary


def _torn(path: Path, note: Callable[[str], None]) -> Callable[[], None]:
    """A function that notes a last line that was cut off by a kill, and is left out."""
    return lambda: note(f"{path.parent.name}/{path.name}: its last line is cut off and was left out")


def _stages(folder: Path) -> list[Path]:
    rounds = [path for path in folder.glob("round-*") if path.name[6:].isdigit()]
    return [*sorted(rounds, key=lambda path: int(path.name[6:])), folder / "soup"]


def _read_stage(run: Run, stage: Path) -> None:
    experts = stage / "experts"
    for expert in sorted(experts.iterdir()) if experts.is_dir() else []:
        file = expert / "metrics.jsonl"
        if os.path.lexists(file):
            run.metrics[stage.name, expert.name] = read_metrics(file, _torn(file, run.missing.append))
        else:
            run.missing.append(f"{stage.name}/experts/{expert.name}/metrics.jsonl is not there")
    if stage.name == "soup":
        return
    file = stage / "merged" / "diagnostics.json"
    if os.path.lexists(file):
        run.diagnostics[int(stage.name[6:])] = read_diagnostics(file)
    else:
        run.missing.append(f"{stage.name}/merged/diagnostics.json is not there")


def _files_of(folder: Path, method: str, name: str) -> list[Path]:
    """The samples of a method below `folder`. A link that leads out of the folder is not one."""
    place = real(folder)
    return [path for path in (folder / method).glob(name) if real(path).is_relative_to(place)]


def _read_samples(run: Run, folder: Path) -> None:
    if not os.path.lexists(folder / "index.json"):
        run.missing.append("samples/index.json is not there: no samples")
        return
    index = read_index(folder / "index.json")
    run.sample_methods = list(index["methods"])
    if not all(map(is_plain, [*run.sample_methods, *(entry["set"] for entry in index["prompts"])])):
        raise ParetuneError(f"{folder / 'index.json'} names what is no folder of its own; delete it")
    absent = 0
    for entry in index["prompts"]:
        name = f"{glob.escape(entry['set'])}-{entry['index']:03d}.*"
        # By name a clip comes before its contact sheet.
        found = {method: min(_files_of(folder, method, name), default=None) for method in run.sample_methods}
        files = {method: file for method, file in found.items() if file is not None}
        absent += len(found) - len(files)
        image = entry.get("image", "")
        beside = folder / input_file(entry["set"], entry["index"])
        own = beside if image and beside.is_file() and not beside.is_symlink() else None
        run.samples.append(Sample(entry["set"], entry["index"], entry["text"], files, image, own))
    if absent:
        run.missing.append(f"samples/: {absent} of the samples in index.json are not there")
