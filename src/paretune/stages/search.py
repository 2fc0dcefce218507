"""The measuring part of the reducer `search`: what candidate weights of adapters are worth.

Every candidate's average is folded, with a round's parents, into the base and draws samples for the
first prompts of each reward's TRAINING set: the held-out prompts must not choose the weights that they
later judge. Its value is the hypervolume of its mean rewards. All candidates are one job, for an
unbounded reward's reference point is known only when all are measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..adapters.store import adapter_hash, load_delta, sum_deltas
from ..config import RunConfig
from ..data.prompts import load_prompts
from ..executors.base import Devices, Report
from ..files import digest, write_rows
from ..models.loading import open_policy
from ..models.lora import folded
from ..models.memory import memory_errors, to_measure
from ..models.policy import Policy
from ..ops.lowrank import LowRank
from ..ops.merging import Experts, merge_experts
from ..planning.plan import Round, derive_seed
from ..records.manifest import finished, write_manifest
from ..records.read import read_candidates
from ..rewards.base import load_reward, score_samples
from ..rewards.table import identity
from ..types import Prompt, Reward, Stopped
from .evaluate import draw
from .scorers import evaluate_inputs
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
    devices: int = 1

    @property
    def title(self) -> str:
        """See `executors.base.Task`."""
        return f"measuring the candidates of {self.round.merged}"

    @property
    def folder(self) -> Path:
        """Where the rows lie, beside the merged folder: one a candidate, its weights, means and value."""
        return (self.run / self.round.merged).with_name("search")


@dataclass(frozen=True)
class Validation:
    """What one reward judges candidates by. prompts: of its training set."""

    reward: Reward
    prompts: Sequence[Prompt]
    seed: int


def measure_candidates(
    job: SearchJob, report: Report, should_stop: Callable[[], bool], devices: Devices
) -> list[float]:
    """The value of every candidate, in their order; measured unless that is done."""
    config, tasks = job.config, job.round.tasks
    sets = validation_of(config, int(config.reduce.options.get("prompts", PROMPTS)))
    inputs = _inputs(job, sets)
    if finished(job.folder, "search", inputs):
        return [row["value"] for row in read_candidates(job.folder / ROWS)]
    experts = [load_delta([job.run / task.folder]) for task in tasks]
    parents = [load_delta([job.run / parent]) for parent in tasks[0].parents]
    cut = (config.reduce.rank, config.reduce.energy)
    policy = open_policy(config.model, devices[0])
    means: list[dict[str, float]] = []
    for measured in means_of(policy, config, sets, experts, parents, job.candidates, cut):
        means.append(measured)
        name = str(job.folder.relative_to(job.run))
        report({"folder": name, "update": len(means), "epochs": len(job.candidates)})
        if should_stop() and len(means) < len(job.candidates):
            raise Stopped
    values, reference = values_of(config, means)
    rows = [
        {"weights": list(w), "means": m, "value": v}
        for w, m, v in zip(job.candidates, means, values, strict=True)
    ]
    write_rows(job.folder / ROWS, rows)
    place = job.folder.relative_to(job.run).as_posix()
    write_manifest(job.folder, "search", inputs, [ROWS], place=place, reference_point=reference)
    return values


def means_of(
    policy: Policy,
    config: RunConfig,
    sets: Mapping[str, Validation],
    experts: Experts,
    parents: Sequence[Mapping[str, LowRank]],
    candidates: Sequence[Weights],
    cut: tuple[int | None, float | None] = (None, None),
) -> Iterator[dict[str, float]]:
    """Each candidate's mean rewards, one model after another. cut: the merge's rank and energy."""
    for weights in candidates:
        merged = merge_experts(experts, weights, rank=cut[0], energy=cut[1]).deltas
        # Folded in one sum, as the evaluation folds: a bfloat16 base rounds once.
        changes = sum_deltas([*parents, merged])
        with memory_errors(to_measure, config), folded(policy.transformer, changes):
            means = {name: _mean(policy, config, own) for name, own in sets.items()}
        yield means


def values_of(
    config: RunConfig, means: Sequence[Mapping[str, float]]
) -> tuple[list[float], dict[str, float]]:
    """The hypervolume of each candidate's means, and the reference point that it is from."""
    space = space_of(config)
    reference = space.reference(means)
    return [space.hypervolume(m, reference) for m in means], reference


def validation_of(config: RunConfig, count: int = PROMPTS) -> dict[str, Validation]:
    """Each reward's first prompts, and noise that is neither training's nor the evaluation's."""
    return {
        name: Validation(
            load_reward(own.reward, name=name, **own.options),
            load_prompts(own.prompts)[:count],
            derive_seed(config.seed, "search", name),
        )
        for name, own in config.rewards.items()
    }


def _mean(policy: Policy, config: RunConfig, own: Validation) -> float:
    samples = draw(policy, config, own.prompts, own.seed)
    repeated = [p for p in own.prompts for _ in range(config.evaluate.samples)]
    values = score_samples(
        own.reward, samples, repeated, timeout=config.executor.reward_timeout
    )
    return float(values.double().mean())


def _inputs(job: SearchJob, sets: Mapping[str, Validation]) -> str:
    config = job.config.without_rounding()
    return digest(
        {
            "candidates": job.candidates,
            "experts": [adapter_hash(job.run / t.folder) for t in job.round.tasks],
            "parents": [adapter_hash(job.run / p) for p in job.round.tasks[0].parents],
            "cut": [config.reduce.rank, config.reduce.energy],
            "model": [job.model, config.model.model_dump(mode="json")],
            "evaluate": evaluate_inputs(config.evaluate),
            "threads": config.executor.threads,
            "rewards": {name: [identity(own.reward), own.options] for name, own in config.rewards.items()},
            "prompts": {
                name: [own.seed, [asdict(prompt) for prompt in own.prompts]]
                for name, own in sets.items()
            },
        }
    )
