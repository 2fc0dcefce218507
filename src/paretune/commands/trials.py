"""Short trainings beside a run, and what their model measures. Their prompts are those of `held_out`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import RunConfig
from ..environment import describe
from ..executors import open_executor
from ..executors.base import Report
from ..files import check_local, write_json, write_text
from ..models.detect import resolve_path
from ..planning.methods import build_plan
from ..records.labels import apart
from ..records.read import read_evaluation
from ..rewards.process import reward_process
from ..run import Clock, Stages
from ..stages.claim import claim, lock
from ..stages.subjects import subjects_of
from ..types import ParetuneError

MARK = ".trials"  # in a folder that trials have made
Means = dict[str, dict[str, float]]  # model -> reward -> value


def begin(config: RunConfig, folder: Path) -> None:
    """Write the recipe of the trials into `folder`, or make sure that it is the one there."""
    check_local(folder)
    if folder.exists() and not folder.is_dir():
        raise ParetuneError(f"{folder} is a file; choose another --out")
    file, text = folder / "recipe.yaml", config.to_yaml()
    begun = {place.name for place in folder.iterdir()} if folder.exists() else set()
    # Before the first training there are our recipe and prompts alone, which are written again.
    ours = MARK in begun and not begun - {MARK, file.name, "prompts"}
    if file.exists() and file.read_text(encoding="utf-8") != text and not ours:
        raise ParetuneError(f"{folder} holds trials of another recipe; choose another --out")
    if not file.exists() and begun:
        raise ParetuneError(f"{folder} is not empty and holds no trials; choose another --out")
    write_text(file, text)
    write_text(folder / MARK, "")


def train_and_measure(
    config: RunConfig, folder: Path, report: Report, others: bool = False
) -> list[dict[str, Any]]:
    """Train the one method of a recipe in `folder`, or go on with it, and measure its model.

    Args:
        config: a recipe of one method.
        folder: a run's folder, of which only rounds and evaluation are made.
        report: called with events.
        others: whether to measure the base and the experts too.

    Returns:
        The measured values on the recipe's `eval_prompts`, of which `summarise.tables` makes means.
    """
    plan = build_plan(config)
    (method,) = plan.methods
    last = f"mapreduce@{config.rounds}" if method.name == "mapreduce" else method.name
    kept = {last, "base", *(f"expert:{name}" for name in config.rewards)} if others else {last}
    subjects = tuple(subject for subject in subjects_of(config, plan) if subject.name in kept)
    executor = open_executor(config, usual=len(config.rewards))
    claim(config, plan, folder, resume=True)
    reward_process().kill()  # it checked the rewards in `claim`; each worker starts one for itself
    with lock(folder) as held, executor:
        environment = describe(config, resolve_path(config.model.path), executor.device)
        write_json(folder / "environment.json", environment)
        stages = Stages(
            config, plan, folder, environment["model_fingerprint"], executor,
            held.watching(report), Clock(folder),
        )  # fmt: skip
        stages.map_and_reduce(method)
        stages.evaluate(subjects)
    return apart([r for s in subjects for r in read_evaluation(folder / s.folder / "rows.jsonl")])


def only(means: Mapping[str, dict[str, float]]) -> dict[str, float]:
    """The means of a table of one model."""
    (found,) = means.values()
    return found
