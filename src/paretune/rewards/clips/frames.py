"""Which frames of a clip VideoAlign's Qwen2-VL sees, and how small one may be.

As published with VideoAlign (github KwaiVGI/VideoAlign, vision_process.py, after Qwen's qwen-vl-utils).
"""

from __future__ import annotations

import torch

from paretune.types import ParetuneError

from ..qwen_vision import FACTOR, TEMPORAL

LEAST_PIXELS = 128 * FACTOR * FACTOR  # of a frame
FEWEST, MOST = 4, 768  # frames


def frame_numbers(total: int, rate: float, fps: float, wanted: int | None = None) -> list[int]:
    """Which of `total` frames are seen: `fps` of a clip of `rate` frames a second, or `wanted` of them.

    Evenly from the first frame to the last, an even number of them, at least 4 and at most 768.
    Raises ParetuneError for a clip of fewer than two frames.
    """
    if total < TEMPORAL:
        raise ParetuneError(f"videoalign needs clips of two frames or more, and this one has {total}")
    if wanted is None:
        most = min(MOST, total) // TEMPORAL * TEMPORAL
        count = round(min(max(total / rate * fps, FEWEST), most) / TEMPORAL) * TEMPORAL
    else:
        count = round(wanted / TEMPORAL) * TEMPORAL
    count = min(count, total)
    return torch.linspace(0, total - 1, count).round().long().tolist()
