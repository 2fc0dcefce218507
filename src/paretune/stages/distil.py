"""Distil the experts of a round into one student (`reduce.method: distil`), as a task for any executor.

The student begins as the exact average of the experts. It is written to the round's `distil/`, from where
Reduce takes it as the average of the round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..adapters.read import read_adapter
from ..adapters.store import adapter_hash, load_delta, save_delta
from ..config import RunConfig
from ..data.prompts import load_prompts
from ..executors.base import Devices, Report
from ..files import digest, disk_errors
from ..models.memory import memory_errors, to_load, to_train
from ..ops.distilling import Distilling
from ..ops.merging import merge_experts
from ..planning.plan import Round, derive_seed
from ..records.manifest import METRICS, finished, read_manifest, write_manifest
from ..samples.media import medium_of
from ..training.distillation.lesson import Pupils
from ..types import ParetuneError
from .luggage import Job

STUDENT = "distil"


@dataclass(frozen=True)
class DistilJob(Job):
    """What a worker needs to distil the experts of a round. base_fingerprint: identifies the base model."""

    config: RunConfig
    round: Round
    run_folder: Path
    base_fingerprint: str
    devices: int = 1

    @property
    def title(self) -> str:
        """See `executors.base.Task`."""
        return f"distilling {self.place}"

    @property
    def reads(self) -> tuple[str, ...]:
        """See `luggage.Job`."""
        return (*(t.folder for t in self.round.tasks), *(p for t in self.round.tasks for p in t.parents))

    @property
    def writes(self) -> str:
        """See `luggage.Job`."""
        return self.place

    @property
    def place(self) -> str:
        """The student's folder, below the folder of the run."""
        return self.round.beside(STUDENT)

    @property
    def seed(self) -> int:
        """Of the prompts and the noise of every step."""
        return derive_seed(self.config.seed, "distil", self.round.number)


def distil_experts(
    job: DistilJob, report: Report, should_stop: Callable[[], bool], devices: Devices
) -> dict[str, Any]:
    """Distil the experts of a job, unless that is done already; returns the student's manifest.

    Args:
        job: the round.
        report: called with the progress.
        should_stop: whether to stop after the next checkpoint, by raising types.Stopped.
        devices: the devices to train on, by torch's names.
    """
    folder, settings = job.run_folder / job.place, Distilling.of(job.config.reduce.options)
    inputs = _inputs(job)
    manifest = finished(folder, "student", inputs)
    if manifest is not None:
        report({"folder": job.place, "update": settings.steps, "epochs": settings.steps})
        return manifest
    check_base(job)
    # Imported here because a worker that only looks up a finished student needs no torch model.
    from ..training.distillation.trainer import Distiller

    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with memory_errors(to_load, job.config.model):
        trainer = Distiller(pupils_of(job), folder, job.place, job.seed, devices[0])
        trainer.resume(inputs)
    flow = medium_of(job.config.model).name != "texts"
    with memory_errors(to_train, job.config, checkpoints=flow):
        deltas = trainer.run(report, should_stop)
    base, component = job.config.model.path, medium_of(job.config.model).component
    files = save_delta(folder, deltas, base, {"student_of": len(job.round.tasks)}, component)
    return write_manifest(
        folder, "student", inputs, files, [METRICS], job.place,
        round=job.round.number, updates=trainer.state.updates, seed=job.seed,
    )  # fmt: skip


def check_base(job: DistilJob) -> None:
    """Raise ParetuneError for an expert that was trained on another model than the round's."""
    base = job.config.model.path.rstrip("/")
    for task in job.round.tasks:
        folder = job.run_folder / task.folder
        named = read_adapter(folder).base_model
        parents = read_manifest(folder).get("parents", [])
        if named != base or list(parents) != list(task.parents):
            on = named if named != base else f"{base} with {', '.join(parents) or 'no earlier round'}"
            raise ParetuneError(
                f"{folder} is an expert on another base ({on}), and distil compares experts on one model: "
                f"remove that folder and resume, which trains it on {base}"
            )


def pupils_of(job: DistilJob) -> Pupils:
    """The experts of a round, the student that begins as their exact average, and the prompts."""
    settings = Distilling.of(job.config.reduce.options)
    experts = [load_delta([job.run_folder / task.folder]) for task in job.round.tasks]
    parents = [job.run_folder / parent for parent in job.round.tasks[0].parents]
    sets = [load_prompts(job.config.rewards[task.reward].prompts) for task in job.round.tasks]
    owner = torch.tensor([number for number, prompts in enumerate(sets) for _ in prompts])
    return Pupils(
        job.config, settings, [prompt for prompts in sets for prompt in prompts], owner,
        [task.reward for task in job.round.tasks],
        load_delta(parents) if parents else None,
        merge_experts(experts, job.round.weights).deltas, experts,
    )  # fmt: skip


def _inputs(job: DistilJob) -> str:
    """A digest of everything that determines the student."""
    config = job.config.without_rounding()
    sets = {task.reward: load_prompts(config.rewards[task.reward].prompts) for task in job.round.tasks}
    return digest(
        {
            "experts": [adapter_hash(job.run_folder / task.folder) for task in job.round.tasks],
            "weights": list(job.round.weights),
            "parents": [adapter_hash(job.run_folder / p) for p in job.round.tasks[0].parents],
            "settings": asdict(Distilling.of(config.reduce.options)),
            "model": [job.base_fingerprint, config.model.model_dump(mode="json")],
            "train": [config.train.max_grad_norm, config.train.autocast],
            "batch": config.evaluate.batch_size,
            "prompts": {name: digest([p.text for p in prompts]) for name, prompts in sets.items()},
            "threads": config.executor.threads,
            "seed": job.seed,
        }
    )
