"""How the learning rate falls over an expert's epochs, by transformers' names."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["constant", "linear", "cosine"]


def rate_share(schedule: Schedule, epoch: int, begins: int, epochs: int) -> float:
    """The share of the learning rate in an epoch (from `begins` to `epochs` - 1): 1 at first.

    It would reach 0 after the last epoch, so that none is trained in vain.
    """
    if schedule == "constant":
        return 1.0
    progress = (epoch - begins) / max(1, epochs - begins)
    return 1.0 - progress if schedule == "linear" else (1.0 + math.cos(math.pi * progress)) / 2
