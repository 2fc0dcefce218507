"""What a reward token learns from: its expert's own samples, drawn once and kept with their hashes.

The expert lies on the model as one frozen adapter that is switched on and off, so that the same weights
are teacher and student and the base is never touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from ...files import write_bytes
from ...models.lora import activate, attach_parents
from ...ops.lowrank import LowRank
from ...records.manifest import finished, write_manifest
from ..checkpoint import Stopped

Tensors = dict[str, torch.Tensor]


class Teacher:
    """An expert on the policy's model, off unless it is asked."""

    def __init__(self, policy: Any, deltas: Mapping[str, LowRank]) -> None:
        self.policy = policy
        policy.transformer.requires_grad_(False)
        attach_parents(policy.transformer, deltas)
        policy.transformer.to(policy.device)
        self.off()

    @contextmanager
    def on(self) -> Iterator[None]:
        """The model is the expert for the length of a block."""
        activate(self.policy.transformer, policy=False, parents=True)
        try:
            yield
        finally:
            self.off()

    def off(self) -> None:
        """The model is the base."""
        activate(self.policy.transformer, policy=False, parents=False)


def draw_once(
    folder: Path,
    inputs: str,
    count: int,
    size: int,
    draw: Callable[[int, torch.Tensor], Tensors],
    should_stop: Callable[[], bool],
) -> Tensors:
    """`count` samples in parts of `size`; those that lie in `folder` already are read.

    inputs: a digest of what decides them. draw: a part's number and its samples' -> tensors, a row a sample.
    They are written in parts, so that little is lost by a stop, which raises Stopped.
    """
    names = [f"samples-{i:04d}.safetensors" for i in range(-(-count // size))]
    if finished(folder, "teacher", inputs) is None:
        for i, name in enumerate(names):
            if _belongs(folder / name, inputs):
                continue
            if should_stop():
                raise Stopped
            tensors = draw(i, torch.arange(i * size, min((i + 1) * size, count)))
            write_bytes(folder / name, save(tensors, {"inputs": inputs}))
        write_manifest(folder, "teacher", inputs, names)
    parts = [load_file(folder / name) for name in names]
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def _belongs(path: Path, inputs: str) -> bool:
    """Whether a part was drawn from the same inputs; files are written whole or not at all."""
    try:
        load_file(path)  # all of it is there
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("inputs") == inputs
    except (OSError, SafetensorError):
        return False
