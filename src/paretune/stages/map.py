"""Map: train one expert, as a task that any executor can run, and write it with its manifest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from ..adapters.store import adapter_hash, load_delta, save_delta
from ..adapters.whole import save_changes
from ..config import RunConfig, StopConfig
from ..data.prompts import load_prompts
from ..executors.base import Devices, Report
from ..files import digest, disk_errors
from ..inputs.pictures import record_identity
from ..models.memory import memory_errors, to_load, to_train
from ..models.weighting import Weighting, save_embedding, time_embedding
from ..ops.lowrank import Changes, LowRank
from ..planning.plan import ExpertTask
from ..records.manifest import METRICS, finished, write_manifest
from ..rewards.base import reward_of
from ..rewards.identity import options_identity
from ..samples.media import medium_of
from ..training.judging import judging_of
from ..training.mixture import Mixture, PromptSet
from ..training.objectives.flat_keys import digest_form
from ..training.objectives.settings import needs_whole_batches
from ..training.preferences.file_lists import file_digest
from ..training.together.crew import ALONE, Crew
from ..training.together.launch import run_together
from .luggage import Job
from .normalise import FOLDER, normalised, scales_of
from .scorers import besides, named


@dataclass(frozen=True)
class MapJob(Job):
    """What a worker needs to train one expert. base_fingerprint: identifies the base model."""

    config: RunConfig
    task: ExpertTask
    run_folder: Path
    base_fingerprint: str
    devices: int = 1

    @property
    def title(self) -> str:
        """See `executors.base.Task`."""
        return f"training {self.task.folder}"

    @property
    def reads(self) -> tuple[str, ...]:
        """See `luggage.Job`."""
        earlier = (self.task.continues,) if self.task.continues else ()
        scales = (FOLDER,) if normalised(self.config) else ()
        return (*self.task.parents, *earlier, *scales)

    @property
    def writes(self) -> str:
        """See `luggage.Job`."""
        return self.task.folder


def train_expert(
    job: MapJob, report: Report, should_stop: Callable[[], bool], devices: Devices
) -> dict[str, Any]:
    """Train the expert of a job, unless it is finished already; returns its manifest.

    Args:
        job: the expert to train.
        report: called with the progress.
        should_stop: whether to stop after the next checkpoint, by raising types.Stopped.
        devices: the devices to train on, by torch's names; several train it together, a process each.
    """
    folder = job.run_folder / job.task.folder
    inputs = expert_inputs(job)
    manifest = finished(folder, "expert", inputs)
    if manifest is not None:
        report({"folder": job.task.folder, "update": job.task.epochs, "epochs": job.task.epochs})
        return manifest
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if len(devices) == 1:
        return train_in_crew(job, report, should_stop, ALONE, devices[0])
    return run_together(train_in_crew, job, job.title, report, should_stop, devices)


def train_in_crew(
    job: MapJob, report: Report, should_stop: Callable[[], bool], crew: Crew, device: str
) -> dict[str, Any]:
    """Train the expert of a job as one of the processes of a crew; returns its manifest to the leader.

    Args:
        job: the expert to train.
        report: called with the progress.
        should_stop: whether to stop after the next checkpoint; the leader's answer counts.
        crew: the processes that train the expert; the leader writes its files.
        device: of this process.
    """
    # Imported here because a worker that only looks up a finished expert needs no torch model.
    from ..training.trainers import open_trainer

    folder, inputs = job.run_folder / job.task.folder, expert_inputs(job)
    with memory_errors(to_load, job.config.model):
        mixture = mixture_of(job.config, job.task, job.run_folder)
        if crew.leader:  # whose metrics are written, and decide
            mixture.judging = judging_of(job.config, job.task)
        trainer = open_trainer(job.config, job.task, folder, mixture, _parents(job), device, crew)
        trainer.resume(inputs, job.run_folder / job.task.continues if job.task.continues else None)
    whole = needs_whole_batches(job.config.objective)
    with memory_errors(to_train, job.config, whole_batches=whole):
        deltas = trainer.run(report, should_stop)
    if not crew.leader:
        return {}
    stopped = getattr(getattr(trainer, "guard", None), "stopped", "")
    files = [*_save(job, folder, deltas), *_save_weighting(job, folder, trainer)]
    return write_manifest(
        folder, "expert", inputs, files, [METRICS], job.task.folder,
        reward=job.task.reward, round=job.task.round, parents=list(job.task.parents),
        updates=trainer.state.updates, seed=job.task.seed,
        **({"stopped": stopped} if stopped else {}),
    )  # fmt: skip


def _save(job: MapJob, folder: Path, changes: Changes) -> list[str]:
    """Write what an expert has changed. Returns the names of its files."""
    model = job.config.model
    if job.config.lora is None:
        return save_changes(folder, cast("dict[str, Tensor]", changes).items(), model.path)
    adapter = cast("dict[str, LowRank]", changes)
    return save_delta(folder, adapter, model.path, {"reward": job.task.reward}, medium_of(model).component)


def _save_weighting(job: MapJob, folder: Path, trainer: object) -> list[str]:
    """Write the embedding of weights, for a policy that is given them. Returns the names of its files."""
    weighting: Weighting | None = getattr(trainer, "weighting", None)
    if weighting is None:
        return []
    place = time_embedding(job.config.model)
    return [save_embedding(folder, weighting.embedding, job.task.rewards, place)]


def mixture_of(config: RunConfig, task: ExpertTask, run_folder: Path | None = None) -> Mixture:
    """The prompt sets of an expert, each with its reward. The rewards that it leans on have no prompts.

    run_folder: where the constants of normalised rewards are; None where no reward is normalised.
    """
    prompt_sets, scales = [], scales_of(config, task, run_folder)
    for name in (*task.rewards, *task.others):
        reward_config, own = config.rewards[name], name in task.rewards
        reward = reward_of(reward_config, name)
        kl = config.objective.kl if reward_config.kl is None else reward_config.kl
        prompts = load_prompts(reward_config.prompts) if own else ()
        weight = reward_config.weight if own else task.lean * reward_config.weight
        pairs = reward_config.pairs if own else None
        prompt_sets.append(PromptSet(reward, prompts, weight, kl, pairs, scales.get(name)))
    return Mixture(prompt_sets, task.scoring)


def _parents(job: MapJob) -> dict[str, LowRank] | list[Path] | None:
    """The sum of the earlier rounds' adapters, or the folders of their changes of all weights."""
    folders = [job.run_folder / p for p in job.task.parents]
    return (folders and (folders if job.config.lora is None else load_delta(folders))) or None


def expert_inputs(job: MapJob) -> str:
    """A digest of everything that determines the expert's weights."""
    task = job.task
    config = job.config.without_rounding(needs_whole_batches(job.config.objective))
    scales = scales_of(config, task, job.run_folder)
    train = config.train.model_dump(mode="json", exclude={"checkpoint_every"})
    if train["decay"] == "zero":
        del train["decay"]  # experts of earlier versions keep their digest
    return digest(
        {
            "task": task.inputs(),
            "model": [job.base_fingerprint, config.model.model_dump(mode="json")],
            "lora": config.lora and config.lora.model_dump(mode="json"),
            "objective": digest_form(config.objective),
            "train": train,
            "rewards": {name: _reward_inputs(config, name) for name in (*task.rewards, *task.others)},
            "threads": config.executor.threads,
            **({"stop_when": _limits(config.stop_when)} if config.stop_when else {}),
            **({"scales": {n: asdict(s) for n, s in scales.items()}} if scales else {}),
            "parents": [adapter_hash(job.run_folder / p) for p in task.parents],
            "continues": adapter_hash(job.run_folder / task.continues) if task.continues else None,
        }
    )


def _limits(limits: StopConfig) -> dict[str, Any]:
    """The limits, without one that earlier versions did not have where it is not given."""
    return limits.model_dump(mode="json", exclude={"judge"} if limits.judge is None else None)


def _reward_inputs(config: RunConfig, name: str) -> list[Any]:
    r = config.rewards[name]
    prompts = digest([record_identity(p) for p in load_prompts(r.prompts)])
    known: list[Any] = [named(r.reward), options_identity(r.reward, r.options), r.kl, r.weight, prompts]
    known += [] if r.pairs is None else [file_digest(r.pairs)]
    return [*known, *besides(r)]
