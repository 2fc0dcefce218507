"""Measure, once a run, what the base's samples score, where `rewards.NAME.normalise` needs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from ..config import RunConfig
from ..data.prompts import load_prompts, spread
from ..executors.base import Devices, Report
from ..files import digest, write_json
from ..inputs.pictures import record_identity
from ..models.loading import open_policy
from ..models.memory import memory_errors, to_measure
from ..ops.scaling import Scaling, constants, scaling
from ..planning.plan import ExpertTask, derive_seed
from ..records.manifest import finished, write_manifest
from ..records.read import Number, checked, read_value
from ..rewards.base import applies_to, reward_of, score_samples
from ..rewards.identity import options_identity
from ..types import ParetuneError, Prompt, Samples, Stopped, take
from .agreement import joined
from .evaluate import draw
from .luggage import Job
from .scorers import besides, evaluate_inputs, named

FOLDER, FILE = "normalise", "constants.json"
PROMPTS, SAMPLES = 32, 4  # training prompts of each reward, and samples of each


class Measured(TypedDict):
    """The constants of one reward; see `ops.scaling.constants`."""

    mean: Number
    std: Annotated[Number, Field(gt=0)]
    quantiles: Annotated[list[Number], Field(min_length=2)]
    samples: int


_CONSTANTS = TypeAdapter(dict[str, Measured])


@dataclass(frozen=True)
class NormaliseJob(Job):
    """What a worker needs. base_fingerprint: identifies the base model."""

    config: RunConfig
    run_folder: Path
    base_fingerprint: str
    devices: int = 1

    @property
    def title(self) -> str:
        """See `executors.base.Task`."""
        return "measuring what the base's samples score"

    @property
    def writes(self) -> str:
        """See `luggage.Job`."""
        return FOLDER


def normalised(config: RunConfig) -> dict[str, str]:
    """Reward -> how it is normalised, without those that are not."""
    return {name: own.normalise for name, own in config.rewards.items() if own.normalise != "none"}


def measure_base(
    job: NormaliseJob, report: Report, should_stop: Callable[[], bool], devices: Devices
) -> str:
    """Score samples of the base on training prompts of all rewards, and write the constants.

    The arguments are those of `measure_agreement`. Returns the folder below the run's folder. Raises
    ParetuneError for a reward by which all samples score the same.
    """
    folder, inputs = job.run_folder / FOLDER, _inputs(job)
    if finished(folder, FOLDER, inputs):
        return FOLDER
    evaluate = job.config.evaluate.model_copy(update={"samples": SAMPLES})
    config = job.config.model_copy(update={"evaluate": evaluate})
    policy, parts, asked = open_policy(config.model, devices[0]), list[Samples](), list[Prompt]()
    for done, (name, own) in enumerate(config.rewards.items(), start=1):
        if should_stop():
            raise Stopped
        prompts = spread(load_prompts(own.prompts), PROMPTS)
        with memory_errors(to_measure, config):
            parts.append(draw(policy, config, prompts, derive_seed(config.seed, "normalise", name)))
        asked += [prompt for prompt in prompts for _ in range(SAMPLES)]
        report({"folder": FOLDER, "update": done, "epochs": len(config.rewards)})
    samples, found = joined(parts), {}
    for name in normalised(config):
        found[name] = _constants(config, name, samples, asked)
    write_json(folder / FILE, found)
    write_manifest(folder, FOLDER, inputs, [FILE], place=FOLDER)
    return FOLDER


def _constants(config: RunConfig, name: str, samples: Samples, asked: list[Prompt]) -> dict[str, Any]:
    reward = reward_of(config.rewards[name], name)
    rows = [i for i, prompt in enumerate(asked) if applies_to(reward, prompt)]
    scores = score_samples(
        reward, take(samples, torch.tensor(rows)), [asked[i] for i in rows],
        timeout=config.executor.reward_timeout,
    )  # fmt: skip
    found = constants(scores)
    if not found["std"] > 1e-9 * max(1.0, abs(found["mean"])):
        raise ParetuneError(
            f"rewards.{name}.normalise: all {len(rows)} samples of the base score {found['mean']:g}, which "
            "gives no scale; leave the key out"
        )
    return found


def scalings(config: RunConfig, run_folder: Path) -> dict[str, Scaling]:
    """Reward -> its scaling, by the constants of the run. Raises ParetuneError for a damaged file."""
    ways = normalised(config)
    if not ways:
        return {}
    file = run_folder / FOLDER / FILE
    remedy = f"delete {run_folder / FOLDER} and resume to make it again"
    found = checked(_CONSTANTS, read_value(file), file, remedy)
    if missing := ways.keys() - found.keys():
        raise ParetuneError(f"{file} has no {', '.join(sorted(missing))}; {remedy}")
    return {name: scaling(kind, found[name]) for name, kind in ways.items()}


def scales_of(config: RunConfig, task: ExpertTask, run_folder: Path | None) -> dict[str, Scaling]:
    """The scalings of an expert that several rewards score; of an expert of one reward none."""
    names = {*task.rewards, *task.others}
    if len(names) < 2 or run_folder is None or not names & normalised(config).keys():
        return {}
    return {name: own for name, own in scalings(config, run_folder).items() if name in names}


def normalised_means(
    config: RunConfig, run_folder: Path, rows: list[dict[str, Any]]
) -> dict[str, dict[str, float]]:
    """Method -> reward -> the mean of its normalised scores, of the rewards that are normalised."""
    ways = scalings(config, run_folder)
    values: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if row["reward"] in ways and not row.get("lattice") and row.get("kind", "reward") == "reward":
            values.setdefault(row["method"], {}).setdefault(row["reward"], []).append(row["value"])
    return {
        method: {n: float(ways[n](torch.tensor(v, dtype=torch.float64)).mean()) for n, v in own.items()}
        for method, own in values.items()
        if not method.startswith("round-")
    }


def _inputs(job: NormaliseJob) -> str:
    config = job.config.without_rounding()
    return digest(
        {
            "model": [job.base_fingerprint, config.model.model_dump(mode="json")],
            "evaluate": evaluate_inputs(config.evaluate),
            "seed": config.seed,
            "threads": config.executor.threads,
            "normalised": sorted(normalised(config)),
            "rewards": {
                name: [
                    named(r.reward), options_identity(r.reward, r.options), *besides(r),
                    [record_identity(p) for p in spread(load_prompts(r.prompts), PROMPTS)],
                ]
                for name, r in config.rewards.items()
            },
        }
    )  # fmt: skip
