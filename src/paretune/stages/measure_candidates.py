"""Measure candidate weights for the reducer `search`.

A candidate is a tuple of weights for the adapters that are merged. Its average is folded into the base,
together with the adapters of the earlier rounds, and this model draws samples for some prompts of each
reward's TRAINING set; the held-out prompts must not choose the weights that they later judge. The value of
the candidate is the hypervolume of its mean rewards. All candidates are one job, because the reference point
of an unbounded reward is known only when all of them are measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..adapters.store import adapter_hash, load_delta, sum_deltas
from ..config import RunConfig
from ..data.prompts import load_prompts, spread
from ..executors.base import Devices, Report
from ..files import digest, read_json, write_json, write_rows
from ..inputs.pictures import record_identity
from ..models.loading import open_policy
from ..models.lora import folded
from ..models.memory import memory_errors, to_measure
from ..models.policy import Policy
from ..ops.lowrank import LowRank
from ..ops.merging import PROMPTS, Experts, merge_experts
from ..ops.outer import scaled
from ..planning.plan import Round, derive_seed
from ..records.manifest import finished, write_manifest
from ..records.read import read_candidates
from ..rewards.base import reward_of, score_samples
from ..rewards.identity import options_identity
from ..rewards.table import identity
from ..types import Prompt, Reward, Stopped
from .evaluate import draw
from .luggage import Job
from .scorers import besides, evaluate_inputs
from .volumes import space_of

ROWS, KEPT = "candidates.jsonl", "measured.json"  # KEPT: until all are measured
Weights = tuple[float, ...]


@dataclass(frozen=True)
class SearchJob(Job):
    """What a worker needs to measure candidates.

    candidates: weights of the round's experts. base_fingerprint: identifies the base model.
    """

    config: RunConfig
    round: Round
    candidates: tuple[Weights, ...]
    run_folder: Path
    base_fingerprint: str
    devices: int = 1

    @property
    def title(self) -> str:
        """See `executors.base.Task`."""
        return f"measuring the candidates of {self.round.merged}"

    @property
    def reads(self) -> tuple[str, ...]:
        """See `luggage.Job`."""
        return (*(task.folder for task in self.round.tasks), *self.round.tasks[0].parents)

    @property
    def writes(self) -> str:
        """See `luggage.Job`."""
        return self.round.beside("search")

    @property
    def folder(self) -> Path:
        """Where the rows are written, beside the merged folder.

        There is one row for each candidate, with its weights, mean rewards and value.
        """
        return (self.run_folder / self.round.merged).with_name("search")


@dataclass(frozen=True)
class Validation:
    """How one reward judges candidates. prompts: from its training set. seed: of the noise."""

    reward: Reward
    prompts: Sequence[Prompt]
    seed: int


def measure_candidates(
    job: SearchJob, report: Report, should_stop: Callable[[], bool], devices: Devices
) -> list[float]:
    """The value of every candidate, in order. They are measured unless that is done already.

    Args:
        job: the candidates, and the round whose experts they weight.
        report: called with the progress.
        should_stop: whether to stop before the next candidate, by raising types.Stopped.
        devices: the devices to measure on, by torch's names.
    """
    config, tasks = job.config, job.round.tasks
    sets = validation_of(config, int(config.reduce.options.get("prompts", PROMPTS)))
    inputs = _inputs(job, sets)
    if finished(job.folder, "search", inputs):
        return [row["value"] for row in read_candidates(job.folder / ROWS)]
    experts = [load_delta([job.run_folder / task.folder]) for task in tasks]
    parents = [load_delta([job.run_folder / parent]) for parent in tasks[0].parents]
    cut = (config.reduce.rank, config.reduce.energy)
    policy = open_policy(config.model, devices[0])
    step = _fixed_step(job.round)

    def models(start: int) -> Iterator[dict[str, float]]:
        return means_of(policy, config, sets, experts, parents, job.candidates[start:], cut, step)

    return measured(job, models, job.candidates, inputs, report, should_stop)


class Measuring(Protocol):
    """A job that measures candidates."""

    @property
    def config(self) -> RunConfig:
        """The recipe."""
        ...

    @property
    def run_folder(self) -> Path:
        """The folder of the run."""
        ...

    @property
    def folder(self) -> Path:
        """Where the rows are written."""
        ...


def measured(
    job: Measuring, models: Callable[[int], Iterator[dict[str, float]]], candidates: Sequence[Weights],
    inputs: str, report: Report, should_stop: Callable[[], bool],
) -> list[float]:  # fmt: skip
    """Go through the mean rewards of all candidates, and write the rows. Returns their values.

    What was measured before a stop or a kill is not measured again.

    Args:
        job: what is measured.
        models: the number of a candidate -> the mean rewards of it and of one after another of the rest; each
            is measured when it is asked for.
        candidates: the weights of the adapters in each.
        inputs: a digest of everything that determines the values.
        report: called with the progress.
        should_stop: whether to stop before the next candidate, by raising types.Stopped.
    """
    kept, place = job.folder / KEPT, job.folder.relative_to(job.run_folder).as_posix()
    known: dict[str, Any] = read_json(kept) if kept.is_file() else {}
    means: list[dict[str, float]] = known["means"] if known.get("inputs") == inputs else []
    for one in models(len(means)):
        means.append(one)
        write_json(kept, {"inputs": inputs, "means": means})
        report({"folder": place, "update": len(means), "epochs": len(candidates)})
        if should_stop() and len(means) < len(candidates):
            raise Stopped
    values, reference = values_of(job.config, means)
    rows = [
        {"weights": list(w), "means": m, "value": v}
        for w, m, v in zip(candidates, means, values, strict=True)
    ]
    write_rows(job.folder / ROWS, rows)
    write_manifest(job.folder, "search", inputs, [ROWS], place=place, reference_point=reference)
    kept.unlink(missing_ok=True)
    return values


def means_of(
    policy: Policy,
    config: RunConfig,
    sets: Mapping[str, Validation],
    experts: Experts,
    parents: Sequence[Mapping[str, LowRank]],
    candidates: Sequence[Weights],
    cut: tuple[int | None, float | None] = (None, None),
    step: float = 1.0,
) -> Iterator[dict[str, float]]:
    """Yield the mean rewards of each candidate, one model after another.

    Args:
        policy: the base model; every candidate is folded into it and taken out again.
        config: the recipe.
        sets: reward -> how it judges candidates.
        experts: the adapters that a candidate weights.
        parents: adapters that are added to every candidate.
        candidates: tuples of weights, one weight for each expert.
        cut: the rank and the energy that the merge is cut to.
        step: how much of the merge is folded.
    """
    merges = (
        scaled(merge_experts(experts, w, rank=cut[0], energy=cut[1]).deltas, step) for w in candidates
    )
    return means_with(policy, config, sets, merges, parents)


def means_with(
    policy: Policy,
    config: RunConfig,
    sets: Mapping[str, Validation],
    changes: Iterable[Mapping[str, LowRank]],
    parents: Sequence[Mapping[str, LowRank]],
) -> Iterator[dict[str, float]]:
    """`means_of` of changes that are merged already: one candidate each."""
    for merged in changes:
        # All adapters are folded as one sum, as in the evaluation, so that a bfloat16 base is rounded once.
        whole = sum_deltas([*parents, merged])
        with memory_errors(to_measure, config), folded(policy.transformer, whole):
            means = {name: _mean(policy, config, validation) for name, validation in sets.items()}
        yield means


def values_of(
    config: RunConfig, means: Sequence[Mapping[str, float]]
) -> tuple[list[float], dict[str, float]]:
    """The hypervolume of each candidate's mean rewards, and the reference point it is measured from."""
    space = space_of(config)
    reference = space.reference(means)
    return [space.hypervolume(m, reference) for m in means], reference


def validation_of(config: RunConfig, count: int = PROMPTS) -> dict[str, Validation]:
    """For each reward `count` of its prompts, and noise that neither training nor evaluation uses."""
    return {
        name: Validation(
            reward_of(reward_config, name),
            spread(load_prompts(reward_config.prompts), count),
            derive_seed(config.seed, "search", name),
        )
        for name, reward_config in config.rewards.items()
    }


def _mean(policy: Policy, config: RunConfig, validation: Validation) -> float:
    samples = draw(policy, config, validation.prompts, validation.seed)
    repeated = [p for p in validation.prompts for _ in range(config.evaluate.samples)]
    values = score_samples(
        validation.reward, samples, repeated, timeout=config.executor.reward_timeout
    )
    return float(values.double().mean())


def _fixed_step(round_: Round) -> float:
    """How much of each average is measured. A step to choose is chosen afterwards, for the best average."""
    return round_.step if isinstance(round_.step, float) else 1.0


def _inputs(job: SearchJob, sets: Mapping[str, Validation]) -> str:
    config = job.config.without_rounding()
    return digest(
        {
            "candidates": job.candidates,
            "experts": [adapter_hash(job.run_folder / t.folder) for t in job.round.tasks],
            "cut": [config.reduce.rank, config.reduce.energy],
            **({} if (step := _fixed_step(job.round)) == 1 else {"step": step}),
            **measuring_inputs(config, job.round, job.run_folder, job.base_fingerprint, sets),
        }
    )


def _facts(prompt: Prompt) -> dict[str, Any]:
    """A prompt as digests know it."""
    text, record = record_identity(prompt)
    return {"text": text, "metadata": record}


def measuring_inputs(
    config: RunConfig, round_: Round, run_folder: Path, base_fingerprint: str, sets: Mapping[str, Validation]
) -> dict[str, Any]:
    """What determines the values of a round's candidates, beside the candidates themselves."""
    return {
        "parents": [adapter_hash(run_folder / p) for p in round_.tasks[0].parents],
        "model": [base_fingerprint, config.model.model_dump(mode="json")],
        "evaluate": evaluate_inputs(config.evaluate),
        "threads": config.executor.threads,
        "rewards": {
            name: [identity(r.reward), options_identity(r.reward, r.options), *besides(r)]
            for name, r in config.rewards.items()
        },
        "prompts": {
            name: [validation.seed, [_facts(prompt) for prompt in validation.prompts]]
            for name, validation in sets.items()
        },
    }
