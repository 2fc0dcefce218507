"""What the world's two rewards say of drawings that are right, and of drawings with one thing wrong.

    python -m tools.worlds.clips.drawings

The rewards are measured here and not learned, so that this table is all there is to know of what they see.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import replace

import numpy as np
import torch

from paretune.rewards.worlds.video import MotionQuality, VideoQuality
from paretune.types import Prompt
from paretune.worlds.clips.render import random_style, render
from paretune.worlds.clips.scenes import DIRECTIONS, FLAWS, SPEEDS, Clip, Flaw, caption, random_clip, record
from paretune.worlds.pictures.scenes import COLORS, SHAPES

SMEARED = "smeared by its motion"
OTHERS = {"shape": SHAPES, "color": COLORS, "direction": DIRECTIONS, "speed": SPEEDS}
KINDS = ("right", SMEARED, *FLAWS, *(f"another {fact}" for fact in OTHERS))


def means(kind: str, count: int, seed: int) -> tuple[float, float]:
    """Mean video and motion quality of `count` drawings of a kind, each under the caption asked for."""
    rng = random.Random(seed)
    told = [random_clip(rng) for _ in range(count)]
    drawn = np.stack([_draw(clip, kind, rng) for clip in told])
    samples = torch.from_numpy(drawn).permute(0, 1, 4, 2, 3).float() / 255
    prompts = [Prompt(caption(clip), record(clip)) for clip in told]
    video, motion = (reward.score(samples, prompts) for reward in (VideoQuality(), MotionQuality()))
    return float(video.mean()), float(motion.mean())


def _draw(clip: Clip, kind: str, rng: random.Random) -> np.ndarray:
    """A drawing of the clip that is of this kind: uint8 [T, H, W, 3]."""
    fact = kind.removeprefix("another ")
    if fact in OTHERS:
        wrong = rng.choice([value for value in OTHERS[fact] if value != getattr(clip, fact)])
        clip = replace(clip, **{fact: wrong})
    flaw: Flaw | None = next((f for f in FLAWS if f == kind), None)
    return render(clip, random_style(rng, float(kind == SMEARED)), rng, flaw)


def main() -> None:
    """A row of a table for each kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=48, help="drawings of each kind")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print("| drawing | `video_quality` | `motion_quality` |", "|---|---|---|", sep="\n")
    for kind in KINDS:
        video, motion = means(kind, args.count, args.seed)
        print(f"| {kind} | {video:.2f} | {motion:.2f} |")


if __name__ == "__main__":
    main()
