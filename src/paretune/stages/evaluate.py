"""Evaluate: score every model with every reward and judge, on the same held-out prompts and the same noise.

Each model is a `Subject`: a name, and the adapters that make the model from the base. Its rows are written to
evaluation/NAME/rows.jsonl; its manifest records how to read them (`scorers.Scale`). `collect` joins the rows
of all models into evaluation.jsonl.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..adapters.store import adapter_hash
from ..config import RunConfig
from ..data.prompts import load_prompts
from ..executors.base import Devices, Report
from ..files import digest, disk_errors, write_json, write_rows
from ..inputs.pictures import picture_hash, picture_of, record_identity
from ..models.loading import open_policy
from ..models.memory import memory_errors, to_load, to_measure
from ..models.policy import Policy
from ..models.weighting import add_embedding, embedding_hash
from ..models.whole import add_changes
from ..planning.plan import derive_seed
from ..records.labels import apart
from ..records.manifest import finished, read_manifest, write_manifest
from ..records.names import is_plain
from ..records.read import read_evaluation
from ..reward_tokens.files import read_token
from ..reward_tokens.pipelines import Scaled, resolve
from ..reward_tokens.spec import TokenUse
from ..rewards.base import applies_to
from ..rewards.identity import options_identity
from ..samples.media import medium_of
from ..types import ParetuneError, Prompt, Reward, Samples, Stopped, take
from .luggage import Job
from .reliability import FILE as RELIABILITY
from .reliability import Reliability, Scoring, scored
from .scorers import Scale, besides, evaluate_inputs, named, recorded, scale_of, scorers_of
from .shown_inputs import shown_prompts

SHOWN = 6  # samples a prompt set that the report shows


@dataclass(frozen=True)
class Subject:
    """A model to measure.

    adapters: folders below the run's folder; they are added to the base, each multiplied by its entry in
    `scales`. scales: if empty, every factor is 1. prompts: how many prompts of each held-out set are used.
    preference: the weights of the rewards that the model stands for. lattice: whether the model is from the
    grid of preferences rather than the method's model at the recipe's weights. tokens: the run's reward
    tokens that follow every prompt. weighted: the folder of an embedding that gives `preference` to the
    model, "" for none.
    """

    name: str
    method: str
    adapters: tuple[str, ...]
    prompts: int
    preference: tuple[float, ...]
    round: int | None = None
    scales: tuple[float, ...] = ()
    lattice: bool = False
    tokens: tuple[TokenUse, ...] = ()
    weighted: str = ""

    def __post_init__(self) -> None:
        if not is_plain(self.name):
            raise ParetuneError(f"a model cannot be measured under the name {self.name!r}: it is no folder's")

    @property
    def folder(self) -> str:
        """The folder of its rows, below the run's folder."""
        return f"evaluation/{self.name.replace(':', '-')}"

    def told(self) -> dict[str, Any]:
        """Its fields, without `weighted` where it is "", so that older measurements keep their digest."""
        fields = asdict(self)
        return fields if self.weighted else {k: v for k, v in fields.items() if k != "weighted"}


@dataclass(frozen=True)
class EvaluateJob(Job):
    """What a worker needs to measure one subject. base_fingerprint: identifies the base model."""

    config: RunConfig
    subject: Subject
    run_folder: Path
    base_fingerprint: str
    devices: int = 1

    @property
    def title(self) -> str:
        """See `executors.base.Task`."""
        return f"measuring {self.subject.name}"

    @property
    def reads(self) -> tuple[str, ...]:
        """See `luggage.Job`."""
        tokens = (f"tokens/{use.name}" for use in self.subject.tokens)
        return (*self.subject.adapters, *filter(None, [self.subject.weighted]), *tokens)

    @property
    def writes(self) -> str:
        """See `luggage.Job`."""
        return self.subject.folder


def evaluate_subject(
    job: EvaluateJob, report: Report, should_stop: Callable[[], bool], devices: Devices
) -> str:
    """Measure the subject of a job, unless that is done already; returns its folder below the run's folder.

    Args:
        job: the subject to measure.
        report: called with the progress.
        should_stop: whether to stop before the next prompt set, by raising types.Stopped.
        devices: the devices to measure on, by torch's names.
    """
    subject, config = job.subject, job.config
    folder = job.run_folder / subject.folder
    inputs = _inputs(job)
    if finished(folder, "evaluation", inputs):
        report({"folder": subject.folder, "update": 1, "epochs": 1})
        return subject.folder
    policy = open_policy(config.model, devices[0])
    if subject.adapters:
        with memory_errors(to_load, config.model):
            folders = [job.run_folder / adapter for adapter in subject.adapters]
            add_changes(policy.transformer, folders, subject.scales)
    if subject.weighted:
        add_embedding(policy, job.run_folder / subject.weighted, subject.preference)
    bank = {use.name: read_token(job.run_folder / "tokens" / use.name) for use in subject.tokens}
    tokens = resolve(subject.tokens, bank)
    rows: list[dict[str, Any]] = []
    scales: list[Scale] = []
    shown: list[str] = []
    again = Reliability(report) if subject.name == "base" else None
    for done, (name, reward_config) in enumerate(config.rewards.items()):
        if should_stop():
            raise Stopped
        prompts = load_prompts(reward_config.eval_prompts)[: subject.prompts]
        with memory_errors(to_measure, config):
            samples = draw(policy, config, prompts, derive_seed(config.evaluate.seed, name), tokens)
        for kind, scorer in scorers_of(config, name):
            scales.append(scale_of(name, kind, scorer))
            first = _score(job, scales[-1], scorer, prompts, samples)
            rows += _rows(job, scales[-1], first)
            if again is not None:
                again.note(name, kind, scorer, first)
        shown += _save_samples(folder, name, samples, config)
        report({"folder": subject.folder, "update": done + 1, "epochs": len(config.rewards)})
    write_rows(folder / "rows.jsonl", rows)
    if again is not None:
        again.write(folder)
    facts = {"subject": subject.told(), **recorded(scales)}
    files = ["rows.jsonl", *shown]
    write_manifest(folder, "evaluation", inputs, files, [RELIABILITY], place=subject.folder, **facts)
    return subject.folder


def _inputs(job: EvaluateJob) -> str:
    config, subject = job.config.without_rounding(), job.subject.told()
    tokens = subject.pop("tokens")
    extra = dict[str, list[Any]]()
    if tokens:
        hashes = [read_manifest(job.run_folder / "tokens" / t["name"])["files"] for t in tokens]
        extra = {"tokens": [tokens, hashes]}
    if job.subject.weighted:
        extra["weights"] = [embedding_hash(job.run_folder / job.subject.weighted)]
    return digest(
        {
            **extra,
            "subject": subject,
            "adapters": [adapter_hash(job.run_folder / a) for a in job.subject.adapters],
            "model": [job.base_fingerprint, config.model.model_dump(mode="json")],
            "evaluate": evaluate_inputs(config.evaluate),
            "files": [named(spec) for spec in config.evaluate.untargeted if ".py:" in spec],
            "threads": config.executor.threads,
            "rewards": {
                name: [
                    named(r.reward), r.judge and named(r.judge), options_identity(r.reward, r.options),
                    [record_identity(p) for p in load_prompts(r.eval_prompts)],
                    *besides(r),
                ]
                for name, r in config.rewards.items()
            },
        }
    )  # fmt: skip


def draw(
    policy: Policy, config: RunConfig, prompts: Sequence[Prompt], seed: int, tokens: Sequence[Scaled] = ()
) -> Samples:
    """Draw `evaluate.samples` samples of each of P prompts.

    Args:
        policy: the model that draws.
        config: the recipe.
        prompts: P prompts.
        seed: of the noise, which therefore does not depend on the model.
        tokens: reward tokens that follow every prompt.

    Returns:
        P * evaluate.samples samples, prompt-major.
    """
    return medium_of(config.model).draw(policy, config, prompts, seed, tokens)


def _score(
    job: EvaluateJob, scale: Scale, scorer: Reward, prompts: tuple[Prompt, ...], drawn: Samples
) -> Scoring:
    """What one scorer says on one prompt set."""
    settings = job.config
    samples = settings.evaluate.samples
    fit = [i for i, prompt in enumerate(prompts) if applies_to(scorer, prompt)]
    if scale.kind == "untargeted":  # it was not made for this prompt set and may not apply to some prompts
        prompts = tuple(prompts[i] for i in fit)
        drawn = take(drawn, torch.tensor([i * samples + j for i in fit for j in range(samples)]).long())
    repeated = [p for p in prompts for _ in range(samples)]
    groups = np.repeat(np.arange(len(prompts)), samples)
    return scored(scorer, drawn, repeated, groups, settings.executor.reward_timeout)


def _rows(job: EvaluateJob, scale: Scale, first: Scoring) -> list[dict[str, Any]]:
    subject, samples = job.subject, job.config.evaluate.samples
    return [
        {
            "method": subject.method, "round": subject.round, "preference": list(subject.preference),
            "prompt": prompt.text, "prompt_set": scale.prompt_set, "seed": i % samples,
            "reward": scale.name, "value": value, "kind": scale.kind,
            **({"lattice": True} if subject.lattice else {}),
            **({"image": picture_hash(image)} if (image := picture_of(prompt.text)) else {}),
        }
        for i, (prompt, value) in enumerate(zip(first.prompts, first.values.tolist(), strict=True))
    ]  # fmt: skip


def _save_samples(folder: Path, name: str, samples: Samples, config: RunConfig) -> list[str]:
    """Save the first sample of each of the first prompts, for the report. Returns the names of the files."""
    medium, each, names = medium_of(config.model), config.evaluate.samples, []
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(min(SHOWN, len(samples) // each)):
            names += [file.name for file in medium.save(samples, i * each, folder / f"{name}-{i:03d}")]
    return names


def collect(config: RunConfig, run_folder: Path, subjects: tuple[Subject, ...]) -> list[dict[str, Any]]:
    """Join the rows of all subjects into evaluation.jsonl, and copy their samples to samples/.

    Returns the rows.
    """
    for subject in subjects:  # a folder that was removed in the meantime must not make the table shorter
        read_manifest(run_folder / subject.folder)
    rows = apart([row for s in subjects for row in read_evaluation(run_folder / s.folder / "rows.jsonl")])
    write_rows(run_folder / "evaluation.jsonl", rows)
    shown = [s for s in subjects if not s.name.startswith("round-") and not s.lattice]
    prompts = shown_prompts(config, run_folder / "samples", SHOWN)
    for subject in shown:
        target = run_folder / "samples" / subject.name
        with disk_errors(target):
            target.mkdir(parents=True, exist_ok=True)
            for file in _samples_in(target, config):  # from an earlier evaluation that saved more of them
                file.unlink()
            for file in _samples_in(run_folder / subject.folder, config):
                if not file.is_symlink():  # a run makes no links, and a link may lead to any file
                    shutil.copy(file, target / file.name)
    index = {"prompts": prompts, "methods": [s.name for s in shown]}
    write_json(run_folder / "samples" / "index.json", index)
    return rows


def _samples_in(folder: Path, config: RunConfig) -> list[Path]:
    """The files in a folder that `_save_samples` wrote, recognised by their names. Others are the user's."""
    pattern = re.compile(rf"({'|'.join(map(re.escape, config.rewards))})-\d{{3}}(\.\w+)+\Z")
    found = [path for path in folder.glob("*") if pattern.match(path.name)]
    return sorted(path for path in found if path.is_file() or path.is_symlink())
