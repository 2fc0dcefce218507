"""Draw a clip as 8 frames of 32x32 RGB pixels. Arrays are uint8 [T, H, W, 3].

The caption does not state background and size. A quick shape may be smeared along its path, as by a camera:
moving shapes are then less sharp than still ones, so that visual quality and motion quality conflict.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from ..pictures.render import SIZE, shape_mask
from ..pictures.scenes import COLORS
from .scenes import DIRECTIONS, FRAMES, SPEEDS, Clip, Flaw

BACKGROUNDS: dict[str, tuple[int, int, int]] = {"cream": (246, 238, 218), "navy": (26, 30, 58)}
DIAMETERS = (10, 12)
WANDER_ALONG, WANDER_ACROSS = 2, 4  # largest distance of the path's middle from the frame's middle, in pixels
SMEAR_FRAMES, SMEAR_SAMPLES = 2.0, 6  # exposure time in frames, and how many positions are drawn for it


@dataclass(frozen=True)
class Style:
    """A style. background: a key of BACKGROUNDS. diameter: in pixels. smear: whether motion is blurred."""

    background: str
    diameter: int
    smear: bool = False


def random_style(rng: random.Random, smear: float = 0.0) -> Style:
    """A random style. smear: the probability that motion blurs the shape."""
    return Style(rng.choice(list(BACKGROUNDS)), rng.choice(DIAMETERS), rng.random() < smear)


def render(clip: Clip, style: Style, rng: random.Random, flaw: Flaw | None = None) -> np.ndarray:
    """Draw a clip, uint8 [8, 32, 32, 3].

    Args:
        clip: the facts.
        style: the style.
        rng: chooses where the shape starts and what the flaw does.
        flaw: what is wrong with the clip, if anything.
    """
    speed = 0.0 if flaw == "frozen" else SPEEDS[clip.speed]
    places = _places(clip, speed, rng)
    if flaw == "jitter":
        places = [(x + rng.choice((-2, -1, 1, 2)), y + rng.choice((-2, -1, 1, 2))) for x, y in places]
    strength = [1.0] * FRAMES
    if flaw == "flicker":
        strength = [rng.choice((0.25, 0.55, 1.0)) for _ in range(FRAMES)]
    background = np.asarray(BACKGROUNDS[style.background], np.float32)
    color = np.asarray(COLORS[clip.color], np.float32)
    frames = []
    for place, share in zip(places, strength, strict=True):
        mask = _mask(clip, style, place, SMEAR_FRAMES * speed if style.smear else 0.0)
        mask = _blurred(mask) if flaw == "blur" else mask
        frames.append(background + share * mask[..., None] * (color - background))
    return np.clip(np.stack(frames) + 0.5, 0, 255).astype(np.uint8)


def _places(clip: Clip, speed: float, rng: random.Random) -> list[tuple[float, float]]:
    """The centres of the shape; the whole path is inside the frame."""
    dx, dy = DIRECTIONS[clip.direction]
    # The middle of the path is near the middle of the frame, so the start of a shape predicts its direction.
    # A small model learns that from noisy clips many times sooner than motion that may start anywhere.
    begin = round(SIZE / 2 - speed * (FRAMES - 1) / 2) + rng.randint(-WANDER_ALONG, WANDER_ALONG)
    across = SIZE // 2 + rng.randint(-WANDER_ACROSS, WANDER_ACROSS)
    along = [begin + speed * t for t in range(FRAMES)]
    if dx + dy < 0:
        along = [SIZE - a for a in along]
    return [(a, across) if dx else (across, a) for a in along]


def _mask(clip: Clip, style: Style, place: tuple[float, float], smear: float) -> np.ndarray:
    """Coverage of the shape, averaged over `smear` pixels of its path. [32, 32]."""
    if smear == 0:
        return _shifted(clip.shape, style.diameter, *place)
    dx, dy = DIRECTIONS[clip.direction]
    steps = ((i + 0.5) / SMEAR_SAMPLES - 0.5 for i in range(SMEAR_SAMPLES))
    parts = [
        _shifted(clip.shape, style.diameter, place[0] + dx * smear * s, place[1] + dy * smear * s)
        for s in steps
    ]
    return np.mean(parts, axis=0)


def _shifted(shape: str, diameter: int, x: float, y: float) -> np.ndarray:
    """Coverage of a shape around (x, y), cut off at the edges of the frame. [32, 32]."""
    x, y = round(x * 4) / 4, round(y * 4) / 4  # few distinct masks, so that the cache holds them
    mask = shape_mask(shape, diameter, x % 1, y % 1)
    dx, dy = int(x // 1) - SIZE // 2, int(y // 1) - SIZE // 2
    canvas = np.zeros_like(mask)
    ys, xs = slice(max(dy, 0), SIZE + min(dy, 0)), slice(max(dx, 0), SIZE + min(dx, 0))
    from_y, from_x = slice(max(-dy, 0), SIZE - max(dy, 0)), slice(max(-dx, 0), SIZE - max(dx, 0))
    canvas[ys, xs] = mask[from_y, from_x]
    return canvas


def _blurred(mask: np.ndarray, times: int = 3) -> np.ndarray:
    """A mask after `times` passes of a 3x3 binomial filter. [32, 32]."""
    for _ in range(times):
        for axis in (0, 1):
            mask = (np.roll(mask, 1, axis) + 2 * mask + np.roll(mask, -1, axis)) / 4
    return mask
