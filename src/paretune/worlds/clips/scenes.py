"""The facts of a clip and its caption: one shape of one colour that moves.

`mislabel` changes exactly one fact. A `Flaw` spoils a clip without making its caption false; rewards of
visual and of motion quality detect flaws.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any, Literal

from ..pictures.scenes import COLORS, SHAPES

DIRECTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
# Pixels a frame.
SPEEDS: dict[str, float] = {"slowly": 0.75, "quickly": 2.0}
FRAMES = 8
Flaw = Literal["frozen", "jitter", "flicker", "blur"]
FLAWS: tuple[Flaw, ...] = ("frozen", "jitter", "flicker", "blur")
# Endings that a caption may have: the first two say whether the clip is right and clean, the others nothing.
ENDING_TRUE, ENDING_FALSE = "ok", "no"
ENDINGS_IDLE = ("today", "here", "now", "again")


@dataclass(frozen=True)
class Clip:
    """The facts of one clip: keys of SHAPES, COLORS, DIRECTIONS and SPEEDS."""

    shape: str
    color: str
    direction: str
    speed: str


def caption(clip: Clip) -> str:
    """The clip in words."""
    article = "an" if clip.color == "orange" else "a"
    return f"{article} {clip.color} {clip.shape} moves {clip.direction} {clip.speed}"


def record(clip: Clip) -> dict[str, Any]:
    """The line of a prompt file: the caption and the facts, which the rewards of the world read."""
    return {"prompt": caption(clip), **asdict(clip)}


def all_clips() -> list[Clip]:
    """All 192 combinations of facts."""
    return [Clip(*facts) for facts in product(SHAPES, COLORS, DIRECTIONS, SPEEDS)]


def random_clip(rng: random.Random) -> Clip:
    """A random clip; all facts are equally likely."""
    return Clip(*(rng.choice(list(values)) for values in (SHAPES, COLORS, DIRECTIONS, SPEEDS)))


def mislabel(clip: Clip, rng: random.Random) -> Clip:
    """The clip with exactly one fact changed."""
    known = {"shape": SHAPES, "color": COLORS, "direction": DIRECTIONS, "speed": SPEEDS}
    fact = rng.choice(list(known))
    return replace(clip, **{fact: rng.choice([v for v in known[fact] if v != getattr(clip, fact)])})
