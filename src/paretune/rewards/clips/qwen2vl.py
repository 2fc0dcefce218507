"""What Qwen2-VL sees of a clip: which frames, at which size, and cut into which patches.

As published with VideoAlign (github KwaiVGI/VideoAlign, vision_process.py, after Qwen's qwen-vl-utils) and in
transformers' image processor of Qwen2-VL. Shapes: T frames, [T, 3, H, W].
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from paretune.types import ParetuneError

FACTOR = 28  # a patch of 14 pixels, merged two by two
PATCH, MERGE, TEMPORAL = 14, 2, 2
LEAST_PIXELS = 128 * FACTOR * FACTOR  # of a frame
FEWEST, MOST = 4, 768  # frames
MOST_RATIO = 200
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # OpenAI's CLIP


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


def frame_size(height: int, width: int, most_pixels: int) -> tuple[int, int]:
    """The height and width that a frame is brought to: multiples of 28, close to its shape, within limits."""
    if max(height, width) > MOST_RATIO * min(height, width):
        raise ParetuneError(
            f"videoalign: a frame of {width} x {height} pixels is too long and narrow for Qwen2-VL"
        )
    sides = [max(FACTOR, round(side / FACTOR) * FACTOR) for side in (height, width)]
    if sides[0] * sides[1] > most_pixels:
        shrink = math.sqrt(height * width / most_pixels)
        sides = [math.floor(side / shrink / FACTOR) * FACTOR for side in (height, width)]
    elif sides[0] * sides[1] < LEAST_PIXELS:
        grow = math.sqrt(LEAST_PIXELS / (height * width))
        sides = [math.ceil(side * grow / FACTOR) * FACTOR for side in (height, width)]
    return sides[0], sides[1]


def resized(frames: torch.Tensor, most_pixels: int) -> torch.Tensor:
    """Frames in [0, 1] -> whole numbers 0..255 at the size of `frame_size`, resized bicubically."""
    pixels = (frames.float().clamp(0, 1) * 255).round()
    height, width = pixels.shape[-2:]
    size = frame_size(height, width, most_pixels)
    return functional.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 255).round()


def patches(pixels: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
    """Normalised patches [N, 3 * 2 * 14 * 14] of whole numbers 0..255, and the grid [t, h, w] of patches.

    The last frame is repeated where their number is odd.
    """
    mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    frames = (pixels / 255 - mean) / std
    if odd := -len(frames) % TEMPORAL:
        frames = torch.cat([frames, frames[-1:].expand(odd, -1, -1, -1)])
    grid = [len(frames) // TEMPORAL, *(side // PATCH for side in frames.shape[-2:])]
    parts = frames.reshape(
        grid[0], TEMPORAL, 3, grid[1] // MERGE, MERGE, PATCH, grid[2] // MERGE, MERGE, PATCH
    )
    ordered = parts.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return ordered.reshape(math.prod(grid), 3 * TEMPORAL * PATCH * PATCH), grid
