"""What a reward token learns from: its expert's own pictures, drawn once and kept with their hashes.

The expert lies on the model as one frozen adapter that is switched on and off, so that the same weights
are teacher and student and the base is never touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from ..config import RunConfig
from ..files import digest, finished, write_bytes, write_manifest
from ..ops.lowrank import LowRank
from ..plan import TokenTask, derive_seed
from ..policies.adapters import activate, attach_parents
from ..policies.flow import FlowPolicy, Sampling, sample
from ..types import Prompt


class Stopped(Exception):
    """The user asked to stop; what was done is kept."""


@dataclass(frozen=True)
class TeacherSamples:
    """clean: latents [S, C, h, w]. index: the prompt of each, [S]."""

    clean: torch.Tensor
    index: torch.Tensor


class Teacher:
    """An expert on the policy's transformer, off unless it is asked."""

    def __init__(self, policy: FlowPolicy, deltas: Mapping[str, LowRank]) -> None:
        self.policy = policy
        policy.transformer.requires_grad_(False)
        attach_parents(policy.transformer, deltas)
        policy.transformer.to(policy.device)
        self.off()

    def on(self) -> None:
        """The model is the expert."""
        activate(self.policy.transformer, policy=False, parents=True)

    def off(self) -> None:
        """The model is the base."""
        activate(self.policy.transformer, policy=False, parents=False)

    def draw(
        self,
        config: RunConfig,
        task: TokenTask,
        prompts: Sequence[Prompt],
        count: int,
        folder: Path,
        inputs: str,
        should_stop: Callable[[], bool],
    ) -> TeacherSamples:
        """`count` samples by ODE, the prompts in turn; those that lie in `folder` already are read.

        inputs: a digest of what decides them. They are written in parts, so that little is lost by a stop.
        """
        size = config.evaluate.batch_size
        names = [f"samples-{i:04d}.safetensors" for i in range(-(-count // size))]
        settings = [count, size, sampling_of(config).steps, sampling_of(config).guidance, task.seed]
        inputs = digest([inputs, settings, [p.text for p in prompts]])
        if finished(folder, "teacher", inputs) is None:
            for i, name in enumerate(names):
                if _belongs(folder / name, inputs):
                    continue
                if should_stop():
                    raise Stopped
                index = torch.arange(i * size, min((i + 1) * size, count)) % len(prompts)
                clean = self._draw(config, prompts, index, derive_seed(task.seed, "teacher", i))
                tensors = {"clean": clean.contiguous(), "index": index}
                write_bytes(folder / name, save(tensors, {"inputs": inputs}))
            write_manifest(folder, "teacher", inputs, names)
        parts = [load_file(folder / name) for name in names]
        return TeacherSamples(*(torch.cat([p[key] for p in parts]) for key in ("clean", "index")))

    def _draw(
        self, config: RunConfig, prompts: Sequence[Prompt], index: torch.Tensor, seed: int
    ) -> torch.Tensor:
        sampling = sampling_of(config)
        texts = [prompts[int(i)].text for i in index]
        conditions = self.policy.encode(texts, sampling.guidance > 1)
        noise = self.policy.initial_noise(len(index), torch.Generator().manual_seed(seed))
        self.on()
        try:
            return sample(self.policy, conditions, noise, sampling).clean.cpu()
        finally:
            self.off()


def sampling_of(config: RunConfig) -> Sampling:
    """As models are measured: the ODE with the evaluation's steps and guidance."""
    settings = config.evaluate
    guidance = settings.guidance_scale
    guidance = config.model.guidance_scale if guidance is None else guidance
    return Sampling(settings.steps, guidance, batch=settings.batch_size)


def _belongs(path: Path, inputs: str) -> bool:
    """Whether a part was drawn from the same inputs; files are written whole or not at all."""
    if not path.exists():
        return False
    with safe_open(path, "pt") as file:
        return (file.metadata() or {}).get("inputs") == inputs
