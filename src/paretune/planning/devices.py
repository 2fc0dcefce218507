"""The device that a plan is made for: what this machine has, or the GPU that a published model asks for."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from ..config import RunConfig
from ..foreign.fetched import FETCHED
from ..models.detect import check_model


@dataclass(frozen=True)
class PlannedDevice:
    """kind: cpu or cuda. name: in words. here: whether this machine has it."""

    kind: str
    name: str
    here: bool


def planned_device(config: RunConfig) -> PlannedDevice:
    """By `executor.device`. A hub model, or a recipe that asks for a GPU, is planned for one in any case.

    Models that `paretune fetch` brings are small: this machine's own device trains them.
    """
    wanted, gpu = config.executor.device, torch.cuda.is_available()
    path = config.model.path
    if wanted != "cpu" and gpu:
        return PlannedDevice("cuda", torch.cuda.get_device_name(0), True)
    if wanted == "cuda" or (wanted == "auto" and path not in FETCHED and check_model(path) is None):
        return PlannedDevice("cuda", "a GPU like an H100; this machine has none", False)
    return PlannedDevice("cpu", f"this machine's CPU, of {os.cpu_count()} cores", True)


def spoken(seconds: float) -> str:
    """A length of time in the unit that shows it: seconds, minutes, or hours."""
    if seconds < 1:
        return "under 1 s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h" if seconds < 100 * 3600 else f"{seconds / 3600:,.0f} h"
