"""The measuring part of `reduce.method: search`: what candidate weights of a round are worth.

Every candidate's average is folded, with the round's parents, into the base and draws pictures for the
first prompts of each reward's TRAINING set: the held-out prompts must not choose the weights that they
later judge. Its value is the hypervolume of its mean rewards. All candidates are one job, for an
unbounded reward's reference point is known only when all are measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..config import RunConfig
from ..data.prompts import load_prompts
from ..executors.base import Interrupted, Report
from ..files import digest, finished, read_rows, write_manifest, write_rows
from ..ops.merging import merge_experts
from ..plan import Round, derive_seed
from ..policies.adapters import folded
from ..policies.memory import memory_errors, to_measure
from ..policies.opening import open_policy
from ..rewards.base import load_reward, score_samples
from ..types import Prompt, Reward
from .adapters import adapter_hash, load_delta, sum_deltas
from .evaluate import draw
from .volumes import space_of

ROWS = "candidates.jsonl"
PROMPTS = 16
Weights = tuple[float, ...]


@dataclass(frozen=True)
class SearchJob:
    """What a worker needs. candidates: weights of the round's experts. model: the base's fingerprint."""

    config: RunConfig
    round: Round
    candidates: tuple[Weights, ...]
    run: Path
    model: str
    device: str

    @property
    def folder(self) -> Path:
        """Where the rows lie, beside the merged folder: one a candidate, its weights, means and value."""
        return (self.run / self.round.merged).with_name("search")


@dataclass(frozen=True)
class _Validation:
    reward: Reward
    prompts: Sequence[Prompt]
    seed: int


def measure_candidates(
    job: SearchJob, report: Report, should_stop: Callable[[], bool]
) -> list[float]:
    """The value of every candidate, in their order; measured unless that is done."""
    config, tasks = job.config, job.round.tasks
    sets = _validation(config)
    inputs = _inputs(job, sets)
    if finished(job.folder, "search", inputs):
        return [row["value"] for row in read_rows(job.folder / ROWS)]
    policy = open_policy(config.model, job.device)
    experts = [load_delta([job.run / task.folder]) for task in tasks]
    parents = [load_delta([job.run / parent]) for parent in tasks[0].parents]
    means: list[dict[str, float]] = []
    for weights in job.candidates:
        if should_stop():
            raise Interrupted
        merged = merge_experts(
            experts, weights, rank=config.reduce.rank, energy=config.reduce.energy
        ).deltas
        # Folded in one sum, as the evaluation folds: a bfloat16 base rounds once.
        changes = sum_deltas([*parents, merged])
        with memory_errors(to_measure, config), folded(policy.transformer, changes):
            means.append({name: _mean(policy, config, own) for name, own in sets.items()})
        name = str(job.folder.relative_to(job.run))
        report({"folder": name, "update": len(means), "epochs": len(job.candidates)})
    space = space_of(config)
    reference = space.reference(means)
    values = [space.hypervolume(m, reference) for m in means]
    rows = [
        {"weights": list(w), "means": m, "value": v}
        for w, m, v in zip(job.candidates, means, values, strict=True)
    ]
    write_rows(job.folder / ROWS, rows)
    write_manifest(job.folder, "search", inputs, [ROWS], reference_point=reference)
    return values


def _validation(config: RunConfig) -> dict[str, _Validation]:
    """Each reward's validation prompts, and noise that is neither training's nor the evaluation's."""
    count = int(config.reduce.options.get("prompts", PROMPTS))
    return {
        name: _Validation(
            load_reward(own.reward, name=name, **own.options),
            load_prompts(own.prompts)[:count],
            derive_seed(config.seed, "search", name),
        )
        for name, own in config.rewards.items()
    }


def _mean(policy: Any, config: RunConfig, own: _Validation) -> float:
    samples = draw(policy, config, own.prompts, own.seed)
    repeated = [p for p in own.prompts for _ in range(config.evaluate.samples)]
    values = score_samples(
        own.reward, samples, repeated, timeout=config.executor.reward_timeout
    )
    return float(values.double().mean())


def _inputs(job: SearchJob, sets: Mapping[str, _Validation]) -> str:
    config = job.config.without_rounding()
    return digest(
        {
            "candidates": job.candidates,
            "experts": [adapter_hash(job.run / t.folder) for t in job.round.tasks],
            "parents": [adapter_hash(job.run / p) for p in job.round.tasks[0].parents],
            "cut": [config.reduce.rank, config.reduce.energy],
            "model": [job.model, config.model.model_dump(mode="json")],
            "evaluate": config.evaluate.model_dump(mode="json"),
            "threads": config.executor.threads,
            "rewards": {name: [own.reward, own.options] for name, own in config.rewards.items()},
            "prompts": {
                name: [own.seed, [asdict(prompt) for prompt in own.prompts]]
                for name, own in sets.items()
            },
        }
    )
