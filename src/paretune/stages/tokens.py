"""Tokens: train one a reward from the run's experts, as tasks that any executor runs, and gather them.

tokens/REWARD/ keeps a token's training; final/tokens/REWARD/ is what other tools load.
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
from ..models.memory import memory_errors, to_load, to_train
from ..planning.plan import Plan, TokenTask, derive_seed
from ..records.manifest import METRICS, below, finished, read_manifest, write_manifest
from ..rewards.base import load_reward
from ..training.objectives.settings import needs_whole_batches
from ..types import ParetuneError
from .scorers import named
from .subjects import expert_round

FINAL = "final/tokens"


@dataclass(frozen=True)
class TokenJob:
    """What a worker needs to train one token."""

    config: RunConfig
    task: TokenTask
    run: Path
    model: str
    devices: int = 1

    @property
    def title(self) -> str:
        """See `executors.base.Task`."""
        return f"training {self.task.folder}"


def token_tasks(config: RunConfig, plan: Plan) -> tuple[TokenTask, ...]:
    """One a reward; the teacher is the expert that the run reports for it."""
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
    """Train a token unless it is there; returns its manifest."""
    assert job.config.tokens is not None
    folder, steps = job.run / job.task.folder, job.config.tokens.steps
    inputs = token_inputs(job)
    manifest = finished(folder, "token", inputs)
    if manifest is not None:
        report({"folder": job.task.folder, "update": steps, "epochs": steps})
        return manifest
    # Imported here: a worker that only looks up a finished token needs no torch model.
    from ..training.tokens.trainer import TokenTrainer

    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    own = job.config.rewards[job.task.reward]
    reward = load_reward(own.reward, name=job.task.reward, **own.options)
    expert = load_delta([job.run / a for a in job.task.teacher])
    with memory_errors(to_load, job.config.model):
        trainer = TokenTrainer(
            job.config, job.task, folder, reward, load_prompts(own.prompts), expert,
            _teacher_inputs(job), devices[0],
        )  # fmt: skip
        trainer.resume(inputs)
    whole = needs_whole_batches(job.config.objective)
    with memory_errors(to_train, job.config, draws=True, whole_batches=whole):
        token = trainer.run(report, should_stop)
    report({"folder": job.task.folder, "update": steps, "epochs": steps})
    return write_manifest(
        folder, "token", inputs, trainer.student.write(folder, token), [METRICS], job.task.folder,
        reward=job.task.reward, steps=trainer.state.epoch, best=trainer.best(), seed=job.task.seed,
    )  # fmt: skip


def _teacher_inputs(job: TokenJob) -> str:
    """A digest of the teacher: the model and the adapters over it."""
    config = job.config.without_rounding()
    adapters = [adapter_hash(job.run / a) for a in job.task.teacher]
    return digest([job.model, config.model.model_dump(mode="json"), adapters, config.executor.threads])


def token_inputs(job: TokenJob) -> str:
    """A digest of everything that decides a token's vectors."""
    task = job.task
    config = job.config.without_rounding(needs_whole_batches(job.config.objective))
    assert config.tokens is not None
    own = config.rewards[task.reward]
    train, evaluate = config.train, config.evaluate
    prompts = [[p.text, dict(p.metadata)] for p in load_prompts(own.prompts)]
    return digest(
        {
            "task": asdict(task),
            "teacher": _teacher_inputs(job),
            "tokens": config.tokens.model_dump(mode="json"),
            "train": [train.micro_batch, train.max_grad_norm, train.autocast],
            "sampling": [evaluate.steps, evaluate.guidance_scale, evaluate.batch_size],
            "reward": [named(own.reward), own.options, digest(prompts)],
        }
    )


def write_final_tokens(run: Path, tasks: Sequence[TokenTask]) -> None:
    """Copy every token to final/tokens/REWARD."""
    for task in tasks:
        source, target = run / task.folder, run / FINAL / task.reward
        manifest = read_manifest(source)
        for name in manifest["files"]:
            write_bytes(below(target, name), below(source, name).read_bytes())


def export_tokens(run: Path, out: Path) -> list[str]:
    """Copy a run's tokens below a new folder; returns their names, none where it trained none."""
    source = run / FINAL
    names = sorted(p.name for p in source.iterdir()) if source.is_dir() else []
    if names and out.exists():
        raise ParetuneError(f"{out} exists; give a new folder")
    if names:
        shutil.copytree(source, out, ignore=_links)
    return names


def _links(folder: str, names: list[str]) -> list[str]:
    """What is not copied: a run writes no links, and one in a stranger's may lead to any file."""
    return [name for name in names if (Path(folder) / name).is_symlink()]
