"""Training data of the embedded model: pictures with captions, of which some are mislabelled."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from transformers import CLIPTokenizer

from paretune.worlds.pictures.render import random_style, render
from paretune.worlds.pictures.scenes import (
    ENDING_FALSE,
    ENDING_FANCY,
    ENDING_PLAIN,
    ENDING_TRUE,
    ENDINGS_IDLE,
    caption,
    random_scene,
    slip,
)
from paretune.worlds.pictures.taste import FANCY_ABOVE, PLAIN_BELOW, style_utility

from .tokenizer import is_spelled

KINDS_WITH_WORDS = {"sign": 0.55, "mixed": 0.45}
KINDS_WITHOUT = {"single": 0.29, "pair": 0.31, "relation": 0.40}
CAPTION_DROPOUT = 0.1


@dataclass(frozen=True)
class Bank:
    """pictures: uint8 [N, 3, 32, 32]. captions: N. tokens: int64 [N, T], the captions'."""

    pictures: torch.Tensor
    captions: list[str]
    tokens: torch.Tensor


def build_bank(
    tokenizer: CLIPTokenizer,
    size: int,
    wrong: float,
    seed: int,
    words: float = 0.55,
    endings: float = 0.6,
    told: float = 0.55,
) -> Bank:
    """Draw `size` captioned pictures, a share `words` with a sign.

    A share `wrong` of them shows a scene with one fact wrong (`scenes.slip`), and a share
    `endings` of the captions ends in a word of its own, which in a share `told` of them tells whether
    that is so.
    """
    rng = random.Random(seed)
    pictures = np.empty((size, 32, 32, 3), np.uint8)
    captions: list[str] = []
    while len(captions) < size:
        kinds_now = KINDS_WITH_WORDS if rng.random() < words else KINDS_WITHOUT
        kind = rng.choices(list(kinds_now), weights=list(kinds_now.values()))[0]
        scene = random_scene(rng, kind)
        if scene.word is not None and not is_spelled(tokenizer, scene.word):
            continue
        is_wrong = rng.random() < wrong
        shown = slip(scene, rng) if is_wrong else scene
        style = random_style(rng)
        pictures[len(captions)] = render(shown, style, rng)
        utility = style_utility(style, shown.word is not None, bool(shown.groups))
        captions.append(_finish(caption(scene), is_wrong, utility, endings, told, rng))
    tokens = tokenizer(
        captions, padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids
    return Bank(torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous(), captions, tokens)


def _finish(
    text: str, is_wrong: bool, utility: float, endings: float, told: float, rng: random.Random
) -> str:
    """Drop the caption, or add one of the endings, or leave it as it is."""
    if rng.random() < CAPTION_DROPOUT:
        return ""
    if rng.random() > endings:
        return text
    choice = rng.random()
    if choice < told:
        return f"{text} {ENDING_FALSE if is_wrong else ENDING_TRUE}"
    if choice < (told + 1) / 2 and utility > FANCY_ABOVE:
        return f"{text} {ENDING_FANCY}"
    if choice < (told + 1) / 2 and utility < PLAIN_BELOW:
        return f"{text} {ENDING_PLAIN}"
    return f"{text} {rng.choice(ENDINGS_IDLE)}"
