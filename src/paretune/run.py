"""READ FIRST: one whole run of MapReduce LoRA, from a recipe to a report.

A recipe names a base model and N rewards that pull apart. A run makes one adapter on which all of them rise:

    plan      which experts train on what, decided before anything runs           planning/
    map       train one LoRA expert for each reward, in parallel                  stages/map.py
    reduce    average the experts; the next round starts from the average         stages/reduce.py
              (map and reduce repeat for `rounds` rounds; their sum is final/)
    tokens    optional: distil each expert into a reward token                    stages/train_tokens.py
    evaluate  score base, experts, baselines and result on held-out prompts       stages/evaluate.py
    report    summary.json, report.html and plots/                                stages/summarise.py, report/

Every baseline (`rewarded_soup`, `morl_d`, ..) is another plan that goes through the same stages.

Each stage writes a manifest when it is finished. A run that was stopped or killed therefore continues when
`run` is called again with the same recipe and `resume`: every stage that has its manifest is skipped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from .config import RunConfig
from .environment import describe
from .executors import open_executor
from .executors.base import Executor, Report
from .files import write_json, write_rows
from .models.detect import resolve_path
from .ops.distilling import DISTIL
from .planning.budget import counted, set_sizes
from .planning.methods import build_plan
from .planning.notices import notices
from .planning.plan import ExpertTask, MethodPlan, Plan, Round
from .records import seal
from .records.manifest import MANIFEST
from .records.read import read_timing
from .report import write_report
from .rewards.process import reward_process
from .stages.claim import claim, lock
from .stages.distil import STUDENT, DistilJob, distil_experts
from .stages.evaluate import EvaluateJob, Subject, collect, evaluate_subject
from .stages.map import MapJob, train_expert
from .stages.measure_candidates import SearchJob, measure_candidates
from .stages.measure_steps import StepJob, measure_steps
from .stages.normalise import FOLDER, NormaliseJob, measure_base, normalised
from .stages.reduce import MeasureCandidates, MeasureSteps, diagnostics, reduce_round, write_final
from .stages.reduce_whole import reduce_whole, write_final_whole
from .stages.subjects import subjects_of
from .stages.summarise import summarise
from .stages.train_tokens import TokenJob, token_tasks, train_token, write_final_tokens
from .tracking.run import tracked
from .tracking.table import check_trackers
from .types import ParetuneError


def run(
    config: RunConfig, out: Path, report: Report, resume: bool = False, verify: bool = False
) -> dict[str, Any]:
    """Carry out a whole run in the folder `out`.

    Args:
        config: the recipe.
        out: the folder of the run: new, or with `resume` one that the same recipe began.
        report: called with events: the stage that begins, and the progress of each task.
        resume: continue the run that lies in `out`.
        verify: hash the base model's files even where their sizes and times are those of the run's beginning.

    Returns:
        The summary, as summary.json holds it.

    Raises:
        ParetuneError: for a mistake of the user.
        types.Stopped: when the user stopped the run. In both cases finished work is kept.
    """
    check_trackers(config.trackers)
    plan = counted(config, build_plan(config), set_sizes(config))
    executor = open_executor(config, usual=len(config.rewards))
    of_rewards = claim(config, plan, out, resume)
    reward_process().kill()  # it checked the rewards in `claim`; each worker starts one for itself
    with lock(out) as held, tracked(config, out) as tracking:
        report = tracking.watching(held.watching(report))
        base = resolve_path(config.model.path)
        seal.begin(out, Path(base), verify)
        environment = describe(config, base, executor.device)
        write_json(out / "environment.json", environment)
        for notice in [*notices(config), *of_rewards]:
            report({"notice": notice})

        clock = Clock(out)
        with executor:
            fingerprint = environment["model_fingerprint"]
            stages = Stages(config, plan, out, fingerprint, executor, report, clock)
            for baselines, methods in groupby(plan.methods, _is_short_baseline):
                group = list(methods)
                together = baselines and len(group) > 1
                if together:
                    stages.map_side_by_side(group)
                for method in group:
                    stages.map_and_reduce(method, trained=together)
            stages.write_final_adapter()
            stages.train_tokens()
            subjects = subjects_of(config, plan, out)  # with the steps that the rounds have chosen
            stages.evaluate(subjects)

        rows = collect(config, out, subjects)
        summary = summarise(config, plan, out, rows, clock.seconds())
        tracking.front(summary)
        report({"stage": "report"})
        write_report(out)
        tracking.plots()
        held.check()
        stages.check_whole(subjects)
        seal.finish(out)
        return summary


# The names that timing.jsonl uses for the training of a method. A method without an entry keeps its name.
PHASES = {"mapreduce": "map", "rewarded_soup": "soup"}


def _is_short_baseline(method: MethodPlan) -> bool:
    """Whether a baseline trains in one round, so that it may train beside others."""
    return method.name != "mapreduce" and len(method.rounds) == 1


@dataclass(frozen=True)
class Stages:
    """The stages of one run. Each skips what is finished already.

    out: the folder of the run. base_fingerprint: identifies the base model in the digests of the stages.
    """

    config: RunConfig
    plan: Plan
    out: Path
    base_fingerprint: str
    executor: Executor
    report: Report
    clock: Clock

    def map_side_by_side(self, methods: Sequence[MethodPlan]) -> None:
        """Train what several baselines need together, the long tasks first, so that no worker has to wait."""
        self.measure_base()
        tasks = [task for method in methods for task in method.rounds[0].tasks]
        self.report({"stage": "map", "method": " and ".join(m.name for m in methods), "round": 1})
        with self.clock.phase("baselines"):
            self.map(sorted(tasks, key=lambda task: -task.epochs * task.width))

    def map_and_reduce(self, method: MethodPlan, trained: bool = False) -> None:
        """Carry out the rounds of one method: train the experts of a round, then average them."""
        self.measure_base()
        merged: Path | None = None
        for round_ in method.rounds:
            if not trained:
                self.report({"stage": "map", "method": method.name, "round": round_.number})
                with self.clock.phase(PHASES.get(method.name, method.name)):
                    self.map(round_.tasks)
            with self.clock.phase("reduce"):
                self.distil(round_)
                if self.config.lora is None:
                    reduce_whole(self.config, round_, self.out, merged)
                else:
                    measurers = self.candidate_measurer(round_), self.step_measurer(round_)
                    reduce_round(self.config, round_, self.out, merged, *measurers)
            merged = self.out / round_.merged
            if len(round_.tasks) > 1:
                agreement = diagnostics(merged)
                self.report({"stage": "reduce", "method": method.name, "round": round_.number, **agreement})

    def measure_base(self) -> None:
        """Measure the constants of normalised rewards on the base, where the recipe has any."""
        if normalised(self.config):
            with self.clock.phase("normalise"):
                job = NormaliseJob(self.config, self.out, self.base_fingerprint)
                self.executor.map(measure_base, [job], self.report)

    def map(self, tasks: Sequence[ExpertTask]) -> None:
        """Train the experts of one round in parallel."""
        config, devices = self.config, self.config.executor.devices_per_expert
        jobs = [
            MapJob(config.for_expert(task.rewards), task, self.out, self.base_fingerprint, devices)
            for task in tasks
        ]
        self.executor.map(train_expert, jobs, self.report)

    def distil(self, round_: Round) -> None:
        """Distil the experts of a round into one student, where the recipe reduces so."""
        if round_.reduce == DISTIL:
            job = DistilJob(self.config, round_, self.out, self.base_fingerprint)
            self.executor.map(distil_experts, [job], self.report)

    def candidate_measurer(self, round_: Round) -> MeasureCandidates:
        """The function that `reduce.method: search` calls: candidate weights of the round -> their values."""

        def measure(candidates: Sequence[tuple[float, ...]]) -> list[float]:
            """Measure all candidates in one job, which is skipped where its rows are there already."""
            job = SearchJob(self.config, round_, tuple(candidates), self.out, self.base_fingerprint)
            return self.executor.map(measure_candidates, [job], self.report)[0]

        return measure

    def step_measurer(self, round_: Round) -> MeasureSteps:
        """The function that `reduce.step: search` calls: steps of the round's average -> their values."""

        def measure(steps: tuple[float, ...]) -> list[float]:
            """Measure all steps in one job, which is skipped where its rows are there already."""
            job = StepJob(self.config, round_, steps, self.out, self.base_fingerprint)
            return self.executor.map(measure_steps, [job], self.report)[0]

        return measure

    def write_final_adapter(self) -> None:
        """Write final/: the model of the recipe's first method as one adapter, or as a whole transformer."""
        first, final = self.plan.methods[0], self.out / "final"
        merged = [self.out / folder for folder in first.model]
        if self.config.lora is None:
            write_final_whole(self.config, merged, final)
        else:
            write_final(self.config, merged, final, self.out / first.weighted if first.weighted else None)

    def train_tokens(self) -> None:
        """Train one reward token for each expert, in parallel, where the recipe asks for tokens."""
        tasks = token_tasks(self.config, self.plan)
        if not tasks:
            return
        self.report({"stage": "tokens"})
        jobs = [TokenJob(self.config, task, self.out, self.base_fingerprint) for task in tasks]
        with self.clock.phase("tokens"):
            self.executor.map(train_token, jobs, self.report)
        write_final_tokens(self.out, tasks)

    def evaluate(self, subjects: Sequence[Subject]) -> None:
        """Evaluate every subject, in parallel."""
        self.report({"stage": "evaluate"})
        jobs = [EvaluateJob(self.config, s, self.out, self.base_fingerprint) for s in subjects]
        with self.clock.phase("evaluate"):
            self.executor.map(evaluate_subject, jobs, self.report)

    def check_whole(self, subjects: Sequence[Subject]) -> None:
        """Raise ParetuneError for a stage whose folder was removed after the stage had finished."""
        rounds = [r for method in self.plan.methods for r in method.rounds]
        folders = [task.folder for r in rounds for task in r.tasks] + [r.merged for r in rounds]
        folders += [r.beside(STUDENT) for r in rounds if r.reduce == DISTIL]
        folders += [task.folder for task in token_tasks(self.config, self.plan)]
        folders += [FOLDER] if normalised(self.config) else []
        for folder in (*folders, "final", *(s.folder for s in subjects)):
            if not (self.out / folder / MANIFEST).is_file():
                raise ParetuneError(
                    f"{self.out / folder} was removed while this run worked: --resume makes it again"
                )


class Clock:
    """The seconds that each phase takes, summed over all sessions of a resumed run (timing.jsonl)."""

    def __init__(self, out: Path) -> None:
        self.path = out / "timing.jsonl"
        self.rows = read_timing(self.path)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure the time of a block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.rows.append({"phase": name, "seconds": time.perf_counter() - start})
            write_rows(self.path, self.rows)

    def seconds(self) -> dict[str, float]:
        """The seconds by phase, and their sum under "total"."""
        sums: dict[str, float] = {}
        for row in self.rows:
            sums[row["phase"]] = sums.get(row["phase"], 0.0) + row["seconds"]
        return {**sums, "total": sum(sums.values())}
