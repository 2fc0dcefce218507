"""READ FIRST: one whole run.

    plan -> K rounds of (Map: train one expert a reward -> Reduce: average and fold)
         -> final adapter (-> reward tokens) -> evaluate against base, experts and soup -> report

Every stage writes a manifest, so a run that was stopped, or killed, goes on where it was: `run` called
again with the same recipe skips what is finished.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .config import RunConfig
from .environment import describe
from .executors import open_executor
from .executors.base import Executor, Report
from .files import write_json, write_rows
from .models.detect import resolve_path
from .planning.budget import counted, set_sizes
from .planning.long_prompts import told_cuts
from .planning.methods import build_plan
from .planning.plan import ExpertTask, Plan, Round
from .records import seal
from .records.manifest import MANIFEST
from .records.read import read_timing
from .report import write_report
from .rewards.process import reward_process
from .stages.claim import claim, lock
from .stages.evaluate import EvaluateJob, collect, evaluate_subject
from .stages.map import MapJob, train_expert
from .stages.reduce import Evaluate, diagnostics, reduce_round, write_final
from .stages.search import SearchJob, measure_candidates
from .stages.subjects import subjects_of
from .stages.summarise import summarise
from .stages.tokens import TokenJob, token_tasks, train_token, write_final_tokens
from .types import ParetuneError


def run(
    config: RunConfig, out: Path, report: Report, resume: bool = False, verify: bool = False
) -> dict[str, Any]:
    """Do the whole job in the folder `out`; returns the summary.

    report: called with events (stage, expert's progress). Raises ParetuneError on a user's mistake and
    types.Stopped when stopped; in both cases what was finished is kept. verify: hash the base model's files
    even where their sizes and times say that they are those that the run began with.
    """
    plan = counted(config, build_plan(config), set_sizes(config))
    executor = open_executor(config, usual=len(config.rewards))
    claim(config, plan, out, resume)
    reward_process().kill()  # it has checked the rewards; each worker has one of its own
    with lock(out) as held:
        report = held.watching(report)
        base = resolve_path(config.model.path)
        seal.begin(out, Path(base), verify)
        environment = describe(config, base, executor.device)
        write_json(out / "environment.json", environment)
        for line in told_cuts(config):
            report({"notice": line})
        clock = Clock(out)
        with executor:
            stages = Stages(config, plan, out, environment["model_fingerprint"], executor)
            stages.train(report, clock)
            stages.tokens(report, clock)
            stages.measure(report, clock)
        rows = collect(config, out, stages.subjects)
        summary = summarise(config, plan, out, rows, clock.seconds())
        report({"stage": "report"})
        write_report(out)
        held.check()
        stages.check_whole()
        seal.finish(out)
        return summary


# What timing.jsonl calls the training of a method; other methods go by their own name.
PHASES = {"mapreduce": "map", "rewarded_soup": "soup"}


class Stages:
    """The stages of one run, bound to its folder and executor."""

    def __init__(
        self, config: RunConfig, plan: Plan, out: Path, model: str, executor: Executor
    ) -> None:
        self.config, self.plan, self.out, self.model = config, plan, out, model
        self.executor = executor
        self.subjects = subjects_of(config, plan)

    def train(self, report: Report, clock: Clock) -> None:
        """Map and Reduce, round by round, method by method."""
        for method in self.plan.methods:
            merged: list[Path] = []
            for round_ in method.rounds:
                report({"stage": "map", "method": method.name, "round": round_.number})
                with clock.phase(PHASES.get(method.name, method.name)):
                    self.map(round_.tasks, report)
                with clock.phase("reduce"):
                    previous = merged[-1] if merged else None
                    reduce_round(self.config, round_, self.out, previous, self.search(round_, report))
                merged.append(self.out / round_.merged)
                if len(round_.tasks) > 1:
                    told = diagnostics(merged[-1])
                    report({"stage": "reduce", "method": method.name, "round": round_.number, **told})
        model = [self.out / folder for folder in self.plan.methods[0].model]
        write_final(self.config, model, self.out / "final")

    def map(self, tasks: Sequence[ExpertTask], report: Report) -> None:
        """Train the experts of a round in parallel."""
        jobs = [MapJob(self.config, task, self.out, self.model) for task in tasks]
        self.executor.map(train_expert, jobs, report)

    def search(self, round_: Round, report: Report) -> Evaluate:
        """What `reduce.method: search` asks: candidate weights of the round -> their values."""

        def evaluate(candidates: Sequence[tuple[float, ...]]) -> list[float]:
            """One job for all of them, which is skipped where its rows are there."""
            job = SearchJob(self.config, round_, tuple(candidates), self.out, self.model)
            return self.executor.map(measure_candidates, [job], report)[0]

        return evaluate

    def tokens(self, report: Report, clock: Clock) -> None:
        """Train one reward token an expert, in parallel, where the recipe asks for them."""
        tasks = token_tasks(self.config, self.plan)
        if not tasks:
            return
        report({"stage": "tokens"})
        jobs = [TokenJob(self.config, task, self.out, self.model) for task in tasks]
        with clock.phase("tokens"):
            self.executor.map(train_token, jobs, report)
        write_final_tokens(self.out, tasks)

    def measure(self, report: Report, clock: Clock) -> None:
        """Evaluate every subject, in parallel."""
        report({"stage": "evaluate"})
        jobs = [EvaluateJob(self.config, subject, self.out, self.model) for subject in self.subjects]
        with clock.phase("evaluate"):
            self.executor.map(evaluate_subject, jobs, report)

    def check_whole(self) -> None:
        """Raise ParetuneError for a stage whose folder was removed after it was finished."""
        rounds = [r for method in self.plan.methods for r in method.rounds]
        folders = [task.folder for r in rounds for task in r.tasks] + [r.merged for r in rounds]
        folders += [task.folder for task in token_tasks(self.config, self.plan)]
        for folder in (*folders, "final", *(s.folder for s in self.subjects)):
            if not (self.out / folder / MANIFEST).is_file():
                raise ParetuneError(
                    f"{self.out / folder} was removed while this run worked: --resume makes it again"
                )


class Clock:
    """Seconds a phase, summed over the sittings of a resumed run (timing.jsonl)."""

    def __init__(self, out: Path) -> None:
        self.path = out / "timing.jsonl"
        self.rows = read_timing(self.path)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.rows.append({"phase": name, "seconds": time.perf_counter() - start})
            write_rows(self.path, self.rows)

    def seconds(self) -> dict[str, float]:
        """By phase, and "total"."""
        sums: dict[str, float] = {}
        for row in self.rows:
            sums[row["phase"]] = sums.get(row["phase"], 0.0) + row["seconds"]
        return {**sums, "total": sum(sums.values())}
