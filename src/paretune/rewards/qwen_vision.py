"""What a Qwen2-VL or Qwen2.5-VL is shown of a picture or a clip: its size, its patches, the chat around it.

Prepared in torch as transformers' image processor of Qwen2-VL does it with PIL or torchvision, which need not
be here. Shapes: T frames, [T, 3, H, W]; a picture is one frame.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from paretune.types import ParetuneError

from .hub import normalised

PATCH, MERGE, TEMPORAL = 14, 2, 2
FACTOR = PATCH * MERGE  # a patch of 14 pixels, merged two by two
MOST_RATIO = 200
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # OpenAI's CLIP
# Qwen2-VL's own chat template, for one turn of the user that holds a picture or a clip, and a text.
CHAT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>{seen}"
    "<|vision_end|>{text}<|im_end|>\n<|im_start|>assistant\n"
)


def fitting_size(height: int, width: int, least: int, most: int) -> tuple[int, int]:
    """The height and width that a frame is brought to: multiples of 28, with `least` to `most` pixels.

    Raises ParetuneError for a frame that is too long and narrow.
    """
    if max(height, width) > MOST_RATIO * min(height, width):
        raise ParetuneError(f"a picture of {width} x {height} pixels is too long and narrow for Qwen2-VL")
    sides = [max(FACTOR, round(side / FACTOR) * FACTOR) for side in (height, width)]
    if sides[0] * sides[1] > most:
        shrink = math.sqrt(height * width / most)
        sides = [max(FACTOR, math.floor(side / shrink / FACTOR) * FACTOR) for side in (height, width)]
    elif sides[0] * sides[1] < least:
        grow = math.sqrt(least / (height * width))
        sides = [math.ceil(side * grow / FACTOR) * FACTOR for side in (height, width)]
    return sides[0], sides[1]


def resized(frames: torch.Tensor, least: int, most: int) -> torch.Tensor:
    """Frames in [0, 1] -> whole numbers 0..255 at their `fitting_size`, resized bicubically."""
    pixels = (frames.detach().float().clamp(0, 1) * 255).round()
    size = fitting_size(pixels.shape[-2], pixels.shape[-1], least, most)
    return functional.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 255).round()


def patches(pixels: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
    """Normalised patches [N, 3 * 2 * 14 * 14] of whole numbers 0..255, and the grid [t, h, w] of patches.

    The last frame is repeated where their number is odd.
    """
    frames = normalised(pixels / 255, MEAN, STD)
    if odd := -len(frames) % TEMPORAL:
        frames = torch.cat([frames, frames[-1:].expand(odd, -1, -1, -1)])
    grid = [len(frames) // TEMPORAL, *(side // PATCH for side in frames.shape[-2:])]
    parts = frames.reshape(
        grid[0], TEMPORAL, 3, grid[1] // MERGE, MERGE, PATCH, grid[2] // MERGE, MERGE, PATCH
    )
    ordered = parts.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return ordered.reshape(math.prod(grid), 3 * TEMPORAL * PATCH * PATCH), grid
