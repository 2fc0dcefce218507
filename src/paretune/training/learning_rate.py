"""How the learning rate falls over a method's epochs, under the names that transformers uses."""

from __future__ import annotations

import math
from typing import Literal

LRScheduler = Literal["constant", "linear", "cosine"]


def rate_share(lr_scheduler: LRScheduler, epoch: int, begins: int, ends: int) -> float:
    """The share of the learning rate that an epoch trains with.

    The share is 1 in epoch `begins`. It would reach 0 in epoch `ends`, which is the first one after the last,
    so that no epoch is trained with a rate of 0.
    """
    if lr_scheduler == "constant":
        return 1.0
    progress = (epoch - begins) / max(1, ends - begins)
    return 1.0 - progress if lr_scheduler == "linear" else (1.0 + math.cos(math.pi * progress)) / 2
