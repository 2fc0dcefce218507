"""The teacher of a reward token: its expert, whose samples are drawn once and kept with their hashes.

The expert is one frozen adapter on the model, which is switched on and off. So the same weights serve as
teacher and as student, and the base never changes.
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
    """An expert as an adapter on the policy's model. It is off except inside `on`."""

    def __init__(self, policy: Any, deltas: Mapping[str, LowRank]) -> None:
        self.policy = policy
        policy.transformer.requires_grad_(False)
        attach_parents(policy.transformer, deltas)
        policy.transformer.to(policy.device)
        self.off()

    @contextmanager
    def on(self) -> Iterator[None]:
        """Make the model the expert for the length of a block."""
        activate(self.policy.transformer, policy=False, parents=True)
        try:
            yield
        finally:
            self.off()

    def off(self) -> None:
        """Make the model the base."""
        activate(self.policy.transformer, policy=False, parents=False)


def draw_once(
    folder: Path,
    inputs: str,
    count: int,
    size: int,
    draw: Callable[[int, torch.Tensor], Tensors],
    should_stop: Callable[[], bool],
) -> Tensors:
    """Draw samples in parts, or read those that `folder` holds already.

    They are written part by part, so that a stop loses little.

    Args:
        folder: where the parts are kept.
        inputs: a digest of everything that determines the samples.
        count: how many samples.
        size: how many of them are one part.
        draw: called with the number of a part and the numbers of its samples; returns tensors, one row a
            sample.
        should_stop: whether to stop before the next part.

    Returns:
        The tensors of all samples.

    Raises:
        Stopped: when `should_stop` says so.
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
    """Whether a file is a part that was drawn from the same inputs. Files are written whole or not at all."""
    try:
        load_file(path)  # fails where a part of the file is missing
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("inputs") == inputs
    except (OSError, SafetensorError):
        return False
