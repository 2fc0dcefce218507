"""Training data of the embedded model: clips with captions, of which some are wrong or spoiled."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch

from paretune.worlds.clips.render import random_style, render
from paretune.worlds.clips.scenes import (
    ENDING_FALSE,
    ENDING_TRUE,
    ENDINGS_IDLE,
    FRAMES,
    Flaw,
    caption,
    mislabel,
    random_clip,
)
from paretune.worlds.pictures.render import SIZE

ENDING_SHARE = 0.5
CAPTION_DROPOUT = 0.05
# Of the spoiled clips. A frozen clip is sharp, and a jittering one moves.
FLAW_SHARES: dict[Flaw, float] = {"frozen": 0.35, "jitter": 0.2, "flicker": 0.15, "blur": 0.3}


@dataclass(frozen=True)
class Mistakes:
    """Shares of the clips: wrong, by one fact; spoiled, by one flaw; smear, of motion that blurs."""

    wrong: float = 0.0
    spoiled: float = 0.0
    smear: float = 0.0


@dataclass(frozen=True)
class Bank:
    """clips: uint8 [N, 3, T, H, W]. captions: N of them."""

    clips: torch.Tensor
    captions: list[str]


def build_bank(size: int, mistakes: Mistakes, seed: int) -> Bank:
    """Draw `size` captioned clips."""
    rng = random.Random(seed)
    clips = np.empty((size, FRAMES, SIZE, SIZE, 3), np.uint8)
    captions = []
    for i in range(size):
        told = random_clip(rng)
        shown, flaw = told, None
        chance = rng.random()
        if chance < mistakes.wrong:
            shown = mislabel(told, rng)
        elif chance < mistakes.wrong + mistakes.spoiled:
            flaw = rng.choices(list(FLAW_SHARES), weights=list(FLAW_SHARES.values()))[0]
        clips[i] = render(shown, random_style(rng, mistakes.smear), rng, flaw)
        captions.append(_finish(caption(told), shown == told and flaw is None, rng))
    return Bank(torch.from_numpy(clips).permute(0, 4, 1, 2, 3).contiguous(), captions)


def _finish(text: str, good: bool, rng: random.Random) -> str:
    """Drop the caption, or add one of the endings, or leave it as it is."""
    if rng.random() < CAPTION_DROPOUT:
        return ""
    if rng.random() > ENDING_SHARE:
        return text
    if rng.random() < 0.5:
        return f"{text} {ENDING_TRUE if good else ENDING_FALSE}"
    return f"{text} {rng.choice(ENDINGS_IDLE)}"
