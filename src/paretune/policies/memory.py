"""When an accelerator is full: one line that says what would fit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..types import ParetuneError


@contextmanager
def memory_errors(smaller: str) -> Iterator[None]:
    """Turn running out of memory into a line. smaller: a setting that needs less, as --set takes it."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ParetuneError(
            f"out of memory on the accelerator: begin again with --set {smaller}, or with "
            "model.gradient_checkpointing=true; finished experts and evaluations are kept"
        ) from error
