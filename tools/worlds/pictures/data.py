"""Training data of the embedded model: pictures with captions, of which some are mislabelled."""

from __future__ import annotations

import argparse
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
WRONG_SHARE = {"crisp": 0.0, "mislabelled": 0.55}  # of the pictures, by the phase of training


@dataclass(frozen=True)
class Endings:
    """What the ends of captions tell, as shares of all captions that may have an end.

    share: of the captions. told: end in a word that tells whether the picture is right. taste: tell how it is
    drawn, where that is liked or disliked clearly. noise: of the words of both kinds that say the contrary.
    A caption that tells neither has an idle word.
    """

    share: float = 0.6
    told: float = 0.55
    taste: float = 0.25
    noise: float = 0.0

    def draw(self, is_wrong: bool, utility: float, rng: random.Random) -> list[str]:
        """The words at the end of one caption, in any order."""
        if rng.random() > self.share:
            return []
        words: list[str] = []
        if rng.random() < self.told:
            words.append(ENDING_TRUE if self._said(not is_wrong, rng) else ENDING_FALSE)
        if rng.random() < self.taste and not PLAIN_BELOW <= utility <= FANCY_ABOVE:
            words.append(ENDING_FANCY if self._said(utility > FANCY_ABOVE, rng) else ENDING_PLAIN)
        rng.shuffle(words)
        return words or [rng.choice(ENDINGS_IDLE)]

    def _said(self, true: bool, rng: random.Random) -> bool:
        return true if rng.random() >= self.noise else not true


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
    endings: Endings | None = None,
) -> Bank:
    """Draw `size` captioned pictures, a share `words` with a sign.

    A share `wrong` of them shows a scene with one fact wrong (`scenes.slip`). `endings` says what the ends of
    the captions tell of that; None: `Endings()`.
    """
    endings = endings or Endings()
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
        text = "" if rng.random() < CAPTION_DROPOUT else caption(scene)
        captions.append(" ".join([text, *endings.draw(is_wrong, utility, rng)]) if text else text)
    tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return Bank(torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous(), captions, tokens)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the phase of training and what the bank of pictures is drawn by."""
    parser.add_argument("--phase", choices=list(WRONG_SHARE), required=True)
    parser.add_argument("--bank", type=int, default=60_000, help="number of pictures")
    parser.add_argument("--words", type=float, default=0.55, help="share of pictures with a sign")
    parser.add_argument("--wrong", type=float, help="share of mislabelled pictures, by default the phase's")
    parser.add_argument(
        "--endings", type=float, default=Endings.share, help="share of captions with an ending"
    )
    parser.add_argument(
        "--told", type=float, default=Endings.told, help="share of endings that tell of mistakes"
    )
    parser.add_argument("--taste", type=float, default=Endings.taste, help="share that tells of the style")
    parser.add_argument(
        "--noise", type=float, default=Endings.noise, help="share of these words that is false"
    )


def bank_of(tokenizer: CLIPTokenizer, args: argparse.Namespace) -> Bank:
    """The bank that the options of `add_options` ask for, by `args.seed`."""
    wrong = WRONG_SHARE[args.phase] if args.wrong is None else args.wrong
    endings = Endings(args.endings, args.told, args.taste, args.noise)
    return build_bank(tokenizer, args.bank, wrong, args.seed, args.words, endings)
