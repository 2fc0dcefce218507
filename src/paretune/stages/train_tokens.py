"""Train one reward token for each reward from the run's experts, and gather the tokens for other tools.

A token is trained as a task that any executor can run. Its training is kept in tokens/REWARD/; other tools
load it from final/tokens/REWARD/.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..adapters.store import adapter_hash, load_delta
from ..config import RunConfig
from ..data.prompts import load_prompts
from ..executors.base import Devices, Report
from ..files import digest, disk_errors, write_bytes
from ..inputs.pictures import record_identity
from ..models.memory import memory_errors, to_load, to_train
from ..planning.plan import Plan, TokenTask, derive_seed
from ..records.manifest import METRICS, below, finished, read_manifest, write_manifest
from ..rewards.base import reward_of
from ..rewards.identity import options_identity
from ..samples.media import medium_of
from ..training.objectives.settings import needs_whole_batches
from ..types import ParetuneError
from .luggage import Job
from .scorers import besides, named
from .subjects import expert_round

FINAL = "final/tokens"


@dataclass(frozen=True)
class TokenJob(Job):
    """What a worker needs to train one token. base_fingerprint: identifies the base model."""

    config: RunConfig
    task: TokenTask
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
        return self.task.teacher

    @property
    def writes(self) -> str:
        """See `luggage.Job`."""
        return self.task.folder


def token_tasks(config: RunConfig, plan: Plan) -> tuple[TokenTask, ...]:
    """One task for each reward. Its teacher is the expert that the run reports for the reward."""
    experts = expert_round(plan)
    if config.tokens is None or experts is None:
        return ()
    return tuple(
        TokenTask(
            f"tokens/{task.reward}",
            task.reward,
            derive_seed(config.seed, "tokens", task.reward),
            (*task.parents, task.folder),
        )
        for task in experts.tasks
    )


def train_token(
    job: TokenJob, report: Report, should_stop: Callable[[], bool], devices: Devices
) -> dict[str, Any]:
    """Train the token of a job, unless it is finished already; returns its manifest.

    Args:
        job: the token to train.
        report: called with the progress.
        should_stop: whether to stop after the next checkpoint, by raising types.Stopped.
        devices: the devices to train on, by torch's names.
    """
    assert job.config.tokens is not None
    folder, own = job.run_folder / job.task.folder, job.config.tokens
    steps = own.steps + own.options.reinforce
    inputs = token_inputs(job)
    manifest = finished(folder, "token", inputs)
    if manifest is not None:
        report({"folder": job.task.folder, "update": steps, "epochs": steps})
        return manifest
    # Imported here because a worker that only looks up a finished token needs no torch model.
    from ..training.token_distillation.trainer import TokenTrainer

    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    reward_config = job.config.rewards[job.task.reward]
    reward = reward_of(reward_config, job.task.reward)
    expert = load_delta([job.run_folder / a for a in job.task.teacher])
    with memory_errors(to_load, job.config.model):
        trainer = TokenTrainer(
            job.config, job.task, folder, reward, load_prompts(reward_config.prompts), expert,
            _teacher_inputs(job), devices[0],
        )  # fmt: skip
        trainer.resume(inputs)
    whole = needs_whole_batches(job.config.objective)
    flow = medium_of(job.config.model).name != "texts"
    with memory_errors(to_train, job.config, draws=True, whole_batches=whole, checkpoints=flow):
        token = trainer.run(report, should_stop)
    report({"folder": job.task.folder, "update": steps, "epochs": steps})
    return write_manifest(
        folder, "token", inputs, trainer.student.write(folder, token), [METRICS], job.task.folder,
        reward=job.task.reward, steps=trainer.state.epoch, best=trainer.best(), seed=job.task.seed,
    )  # fmt: skip


def _teacher_inputs(job: TokenJob) -> str:
    """A digest of the teacher: the base model and the adapters over it."""
    config = job.config.without_rounding()
    adapters = [adapter_hash(job.run_folder / a) for a in job.task.teacher]
    model, threads = config.model.model_dump(mode="json"), config.executor.threads
    return digest([job.base_fingerprint, model, adapters, threads])


def token_inputs(job: TokenJob) -> str:
    """A digest of everything that determines a token's vectors."""
    task = job.task
    config = job.config.without_rounding(needs_whole_batches(job.config.objective))
    assert config.tokens is not None
    reward_config = config.rewards[task.reward]
    train, evaluate = config.train, config.evaluate
    settings = config.tokens.model_dump(mode="json")
    if config.tokens.options.reinforce:
        objective = config.objective
        settings["compared"] = [train.group_size, objective.advantage_std, objective.advantage_clip]
    else:  # runs of earlier versions know no such key
        del settings["options"]["reinforce"]
    prompts = [record_identity(p) for p in load_prompts(reward_config.prompts)]
    known = options_identity(reward_config.reward, reward_config.options)
    return digest(
        {
            "task": asdict(task),
            "teacher": _teacher_inputs(job),
            "tokens": settings,
            "train": [train.micro_batch, train.max_grad_norm, train.autocast],
            "sampling": [evaluate.steps, evaluate.guidance_scale, evaluate.batch_size],
            "reward": [named(reward_config.reward), known, digest(prompts), *besides(reward_config)],
        }
    )


def write_final_tokens(run_folder: Path, tasks: Sequence[TokenTask]) -> None:
    """Copy every token to final/tokens/REWARD."""
    for task in tasks:
        source, target = run_folder / task.folder, run_folder / FINAL / task.reward
        manifest = read_manifest(source)
        for name in manifest["files"]:
            write_bytes(below(target, name), below(source, name).read_bytes())


def export_tokens(run_folder: Path, out: Path) -> list[str]:
    """Copy a run's tokens into the new folder `out`; returns their names, [] if the run has none."""
    source = run_folder / FINAL
    names = sorted(p.name for p in source.iterdir()) if source.is_dir() else []
    if names and out.exists():
        raise ParetuneError(f"{out} exists; give a new folder")
    if names:
        shutil.copytree(source, out, ignore=_links)
    return names


def _links(folder: str, names: list[str]) -> list[str]:
    """The entries that are not copied: a run writes no links, and a link may lead to any file."""
    return [name for name in names if (Path(folder) / name).is_symlink()]
