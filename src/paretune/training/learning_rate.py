"""How the learning rate falls over a method's epochs, by transformers' names."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["constant", "linear", "cosine"]


def rate_share(schedule: Schedule, epoch: int, begins: int, ends: int) -> float:
    """The share of the learning rate in an epoch, from `begins` to `ends` - 1: 1 at first.

    It would reach 0 at `ends`, so that no epoch is trained in vain.
    """
    if schedule == "constant":
        return 1.0
    progress = (epoch - begins) / max(1, ends - begins)
    return 1.0 - progress if schedule == "linear" else (1.0 + math.cos(math.pi * progress)) / 2
