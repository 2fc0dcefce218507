"""How far a recipe's rewards agree on the base model's samples, as a task that any executor can run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from ..config import RunConfig
from ..data.prompts import load_prompts
from ..executors.base import Devices, Report
from ..files import digest, read_json, write_json
from ..inputs.pictures import record_identity
from ..models.loading import open_policy
from ..models.memory import memory_errors, to_measure
from ..ops.agreement import agreement
from ..planning.plan import derive_seed
from ..records.manifest import finished, write_manifest
from ..rewards.base import reward_of
from ..rewards.identity import options_identity
from ..training.mixture import Mixture, PromptSet
from ..types import Samples, Stopped
from .evaluate import draw
from .luggage import Job
from .scorers import besides, evaluate_inputs, named

PLACE = "agreement"  # the folder of the result
FILE = "agreement.json"


@dataclass(frozen=True)
class AgreementJob(Job):
    """What a worker needs. base_fingerprint: identifies the base model."""

    config: RunConfig
    run_folder: Path
    base_fingerprint: str
    devices: int = 1

    @property
    def title(self) -> str:
        """See `executors.base.Task`."""
        return "asking all rewards about the base model's samples"

    @property
    def folder(self) -> Path:
        """Where the result is written."""
        return self.run_folder / PLACE

    @property
    def writes(self) -> str:
        """See `luggage.Job`."""
        return PLACE


def measure_agreement(
    job: AgreementJob, report: Report, should_stop: Callable[[], bool], devices: Devices
) -> dict[str, Any]:
    """Draw `evaluate.samples` samples of each prompt in `eval_prompts` and score them with every reward.

    Args:
        job: the recipe, and where the result is written.
        report: called with the progress.
        should_stop: whether to stop before the next prompt set, by raising types.Stopped.
        devices: the devices to draw on, by torch's names.

    Returns:
        {"rewards": names, "agreement": rows of `ops.agreement.agreement`, "prompts": P, "samples": G}.
    """
    config, inputs = job.config, _inputs(job)
    if finished(job.folder, "agreement", inputs):
        return read_json(job.folder / FILE)
    sets = [
        PromptSet(reward_of(r, n), load_prompts(r.eval_prompts))
        for n, r in config.rewards.items()
    ]
    mixture, parts = Mixture(sets, "all"), list[Samples]()
    policy = open_policy(config.model, devices[0])
    for done, (name, own) in enumerate(zip(config.rewards, sets, strict=True), start=1):
        if should_stop():
            raise Stopped
        with memory_errors(to_measure, config):
            seed = derive_seed(config.seed, "agreement", name)
            parts.append(draw(policy, config, list(own.prompts), seed))
        report({"folder": PLACE, "update": done, "epochs": len(sets)})
    index = torch.arange(len(mixture.prompts))
    scores = mixture.score(joined(parts), index, config.executor.reward_timeout)
    found = {
        "rewards": list(config.rewards), "prompts": len(index), "samples": config.evaluate.samples,
        "agreement": agreement(mixture.oriented(scores), scores.applies),
    }  # fmt: skip
    write_json(job.folder / FILE, found)
    write_manifest(job.folder, "agreement", inputs, [FILE], place=PLACE)
    return found


def joined(parts: Sequence[Samples]) -> Samples:
    """The samples of several prompt sets, one set after the other."""
    pixels = [part for part in parts if isinstance(part, torch.Tensor)]
    return torch.cat(pixels) if pixels else [text for part in parts for text in cast("list[str]", part)]


def _inputs(job: AgreementJob) -> str:
    config = job.config.without_rounding()
    return digest(
        {
            "model": [job.base_fingerprint, config.model.model_dump(mode="json")],
            "evaluate": evaluate_inputs(config.evaluate),
            "seed": config.seed,
            "threads": config.executor.threads,
            "rewards": {
                name: [
                    named(r.reward), options_identity(r.reward, r.options),
                    [record_identity(p) for p in load_prompts(r.eval_prompts)], *besides(r),
                ]
                for name, r in config.rewards.items()
            },
        }
    )  # fmt: skip
