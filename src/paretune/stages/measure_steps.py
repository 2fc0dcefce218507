"""Measure outer steps for `reduce.step: search`: how much of a round's average should be folded.

The average lies in the round's `direction/`. It is folded into the base once for every step, times the step,
together with the adapters of the earlier rounds; what draws the samples and what values them is as in
`measure_candidates`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..adapters.store import adapter_hash, load_delta
from ..config import RunConfig
from ..executors.base import Devices, Report
from ..files import digest
from ..models.loading import open_policy
from ..ops.outer import scaled
from ..planning.plan import Round
from ..records.manifest import finished
from ..records.read import read_candidates
from .luggage import Job
from .measure_candidates import ROWS, means_with, measured, measuring_inputs, validation_of

DIRECTION = "direction"


@dataclass(frozen=True)
class StepJob(Job):
    """What a worker needs to measure steps. base_fingerprint: identifies the base model."""

    config: RunConfig
    round: Round
    steps: tuple[float, ...]
    run_folder: Path
    base_fingerprint: str
    devices: int = 1

    @property
    def title(self) -> str:
        """See `executors.base.Task`."""
        return f"measuring the steps of {self.round.merged}"

    @property
    def reads(self) -> tuple[str, ...]:
        """See `luggage.Job`."""
        return (self.round.beside(DIRECTION), *self.round.tasks[0].parents)

    @property
    def writes(self) -> str:
        """See `luggage.Job`."""
        return self.round.beside("steps")

    @property
    def folder(self) -> Path:
        """Where the rows are written: one for each step, whose `weights` are the step alone."""
        return self.run_folder / self.round.beside("steps")


def measure_steps(
    job: StepJob, report: Report, should_stop: Callable[[], bool], devices: Devices
) -> list[float]:
    """The value of every step, in order. They are measured unless that is done already.

    The arguments are those of `measure_candidates`.
    """
    config, place = job.config, job.run_folder / job.round.beside(DIRECTION)
    sets = validation_of(config, config.reduce.prompts)
    inputs = digest(
        {
            "steps": job.steps,
            "direction": adapter_hash(place),
            **measuring_inputs(
                config.without_rounding(), job.round, job.run_folder, job.base_fingerprint, sets
            ),
        }
    )
    if finished(job.folder, "search", inputs):
        return [row["value"] for row in read_candidates(job.folder / ROWS)]
    direction = load_delta([place])
    parents = [load_delta([job.run_folder / parent]) for parent in job.round.tasks[0].parents]
    policy = open_policy(config.model, devices[0])

    def models(start: int) -> Iterator[dict[str, float]]:
        changes = (scaled(direction, step) for step in job.steps[start:])
        return means_with(policy, config, sets, changes, parents)

    return measured(job, models, [(step,) for step in job.steps], inputs, report, should_stop)
