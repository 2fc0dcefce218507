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

import torch

from .config import RunConfig
from .environment import choose_device, describe
from .executors.base import Executor, Report
from .executors.local import LocalExecutor
from .files import read_rows, write_json, write_rows
from .folder import claim, lock
from .long_prompts import told_cuts
from .methods import build_plan
from .plan import ExpertTask, Plan, Round
from .policies.folders import resolve_path
from .stages.evaluate import EvaluateJob, collect, evaluate_subject
from .stages.map import MapJob, train_expert
from .stages.reduce import Evaluate, diagnostics, reduce_round, write_final
from .stages.report import write_report
from .stages.search import SearchJob, measure_candidates
from .stages.subjects import subjects_of
from .stages.summarise import summarise
from .stages.tokens import TokenJob, token_tasks, train_token, write_final_tokens


def run(config: RunConfig, out: Path, report: Report, resume: bool = False) -> dict[str, Any]:
    """Do the whole job in the folder `out`; returns the summary.

    report: called with events (stage, expert's progress). Raises ParetuneError on a user's mistake and
    executors.base.Interrupted when stopped; in both cases what was finished is kept.
    """
    plan = build_plan(config)
    device = choose_device(config.executor.device)
    claim(config, plan, out, resume)
    with lock(out):
        environment = describe(config, resolve_path(config.model.path), device)
        write_json(out / "environment.json", environment)
        for line in told_cuts(config):
            report({"notice": line})
        clock = Clock(out)
        workers = config.executor.workers or len(config.rewards)
        with LocalExecutor(workers, config.executor.threads) as executor:
            stages = Stages(config, plan, out, environment["model_fingerprint"], device, executor)
            stages.train(report, clock)
            stages.tokens(report, clock)
            stages.measure(report, clock)
        rows = collect(config, out, stages.subjects)
        summary = summarise(config, plan, out, rows, clock.seconds())
        report({"stage": "report"})
        write_report(out)
        return summary


# What timing.jsonl calls the training of a method; other methods go by their own name.
PHASES = {"mapreduce": "map", "rewarded_soup": "soup"}


class Stages:
    """The stages of one run, bound to its folder and executor."""

    def __init__(
        self, config: RunConfig, plan: Plan, out: Path, model: str, device: str, executor: Executor
    ) -> None:
        self.config, self.plan, self.out, self.model = config, plan, out, model
        self.device, self.executor = device, executor
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
        jobs = [
            MapJob(self.config, task, self.out, self.model, self._device(i))
            for i, task in enumerate(tasks)
        ]
        self.executor.map(train_expert, jobs, report)

    def search(self, round_: Round, report: Report) -> Evaluate:
        """What `reduce.method: search` asks: candidate weights of the round -> their values."""

        def evaluate(candidates: Sequence[tuple[float, ...]]) -> list[float]:
            """One job for all of them, which is skipped where its rows are there."""
            job = SearchJob(
                self.config, round_, tuple(candidates), self.out, self.model, self._device(0)
            )
            return self.executor.map(measure_candidates, [job], report)[0]

        return evaluate

    def tokens(self, report: Report, clock: Clock) -> None:
        """Train one reward token an expert, in parallel, where the recipe asks for them."""
        tasks = token_tasks(self.config, self.plan)
        if not tasks:
            return
        report({"stage": "tokens"})
        jobs = [
            TokenJob(self.config, task, self.out, self.model, self._device(i))
            for i, task in enumerate(tasks)
        ]
        with clock.phase("tokens"):
            self.executor.map(train_token, jobs, report)
        write_final_tokens(self.out, tasks)

    def measure(self, report: Report, clock: Clock) -> None:
        """Evaluate every subject, in parallel."""
        report({"stage": "evaluate"})
        jobs = [
            EvaluateJob(self.config, subject, self.out, self.model, self._device(i))
            for i, subject in enumerate(self.subjects)
        ]
        with clock.phase("evaluate"):
            self.executor.map(evaluate_subject, jobs, report)

    def _device(self, index: int) -> str:
        """GPUs are dealt out in turn."""
        return "cpu" if self.device == "cpu" else f"cuda:{index % torch.cuda.device_count()}"


class Clock:
    """Seconds a phase, summed over the sittings of a resumed run (timing.jsonl)."""

    def __init__(self, out: Path) -> None:
        self.path = out / "timing.jsonl"
        self.rows = read_rows(self.path)

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
