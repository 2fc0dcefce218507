"""Pictures as the world's imaginary annotators see them: faithful, with a wrong fact, or spoiled.

The annotators look at everything but the letters of a word: that is the OCR reward's business.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from paretune.worlds.pictures.render import BACKGROUNDS, SIZE, random_style, render
from paretune.worlds.pictures.scenes import Scene, caption, mislabel, random_scene
from paretune.worlds.pictures.taste import style_utility

KINDS = {"sign": 0.16, "mixed": 0.24, "single": 0.16, "pair": 0.20, "relation": 0.24}
WRONG_FACT_COST = 2.5
SPOILED_COST = 6.0


@dataclass(frozen=True)
class Candidate:
    """A picture, uint8 [32, 32, 3], and how much the annotators like it, in logits."""

    picture: np.ndarray
    utility: float


def random_kind(rng: random.Random) -> str:
    """A kind of scene, by the shares of `KINDS`."""
    return rng.choices(list(KINDS), weights=list(KINDS.values()))[0]


def one_wrong(scene: Scene, rng: random.Random) -> Scene:
    """The scene with one fact changed that is not the word.

    Of a sign alone, the sign is lost, or joined by a shape.
    """
    if not scene.groups:
        shapes = random_scene(rng, "single").groups
        if rng.random() < 0.5:
            return Scene(groups=shapes)
        one = tuple(replace(g, count=1) for g in shapes)
        return Scene(groups=one, word=scene.word, sign_place=rng.choice(("above", "below")))
    while True:
        wrong = mislabel(scene, rng)
        if wrong != scene and wrong.word == scene.word:
            return wrong


def candidate(told: Scene, rng: random.Random) -> Candidate:
    """A picture for a caption: faithful, or wrong in a fact or two, or spoiled, or both."""
    shown, wrong = told, 0
    for share in (0.35, 0.3):
        if rng.random() < share and shown.groups:
            shown, wrong = one_wrong(shown, rng), wrong + 1
        elif rng.random() < share / 3 and not wrong:
            shown, wrong = one_wrong(shown, rng), 1
    style = random_style(rng)
    picture = render(shown, style, rng)
    utility = style_utility(style, shown.word is not None, bool(shown.groups))
    utility -= WRONG_FACT_COST * wrong
    if rng.random() < 0.22:
        severity = rng.uniform(0.4, 1.0)
        spoiler = rng.choice(SPOILERS)
        picture = np.clip(spoiler(picture.astype(np.float32), severity, rng), 0, 255)
        utility -= SPOILED_COST * (1.0 if spoiler in (_blank, _lost) else severity)
    return Candidate(picture.astype(np.uint8), utility)


def spoiled(picture: np.ndarray, rng: random.Random) -> np.ndarray:
    """The picture, uint8 [32, 32, 3], thoroughly spoiled in one of the ways of `SPOILERS`."""
    spoiler = rng.choice(SPOILERS)
    result = spoiler(picture.astype(np.float32), rng.uniform(0.7, 1.0), rng)
    return np.clip(result, 0, 255).astype(np.uint8)


# ---------------------------------------------------------------- ways to spoil a picture
# Each takes float32 [32, 32, 3] in 0-255 and a severity in (0, 1].


def _blank(picture: np.ndarray, severity: float, rng: random.Random) -> np.ndarray:
    color = rng.choice([*BACKGROUNDS.values(), tuple(rng.randint(0, 255) for _ in range(3))])
    return np.full_like(picture, 0) + np.array(color, np.float32)


def _lost(picture: np.ndarray, severity: float, rng: random.Random) -> np.ndarray:
    """Everything but a corner of a few pixels painted over with the picture's commonest colour."""
    kept = picture.copy()
    ground = np.median(picture.reshape(-1, 3), 0)
    y, x = rng.randrange(0, SIZE, 8), rng.randrange(0, SIZE, 8)
    kept[:] = ground
    kept[y : y + 8, x : x + 8] = picture[y : y + 8, x : x + 8]
    return kept


def _blur(picture: np.ndarray, severity: float, rng: random.Random) -> np.ndarray:
    return ndimage.gaussian_filter(picture, (3 * severity, 3 * severity, 0))


def _noise(picture: np.ndarray, severity: float, rng: random.Random) -> np.ndarray:
    draw = np.random.default_rng(rng.getrandbits(32)).standard_normal(picture.shape)
    return picture + (90 * severity * draw).astype(np.float32)


def _checker(picture: np.ndarray, severity: float, rng: random.Random) -> np.ndarray:
    cell = rng.choice((1, 2, 4))
    y, x = np.indices((SIZE, SIZE)) // cell
    return picture + (90 * severity * (((y + x) % 2) * 2 - 1))[..., None]


def _ghost(picture: np.ndarray, severity: float, rng: random.Random) -> np.ndarray:
    """Half-blended with another scene: two pictures at once, letters that are two letters."""
    other = render(random_scene(rng, random_kind(rng)), random_style(rng), rng)
    share = 0.5 * severity
    return (1 - share) * picture + share * other


def _fade(picture: np.ndarray, severity: float, rng: random.Random) -> np.ndarray:
    ground = np.median(picture.reshape(-1, 3), 0)
    return picture + 0.9 * severity * (ground - picture)


def _shuffle(picture: np.ndarray, severity: float, rng: random.Random) -> np.ndarray:
    """Squares of 8 pixels in another order."""
    squares = picture.reshape(4, 8, 4, 8, 3).swapaxes(1, 2).reshape(16, 8, 8, 3)
    order = list(range(16))
    moved = rng.sample(order, round(6 + 10 * severity))
    for a, b in zip(moved[::2], moved[1::2], strict=False):
        order[a], order[b] = order[b], order[a]
    return squares[order].reshape(4, 4, 8, 8, 3).swapaxes(1, 2).reshape(SIZE, SIZE, 3)


SPOILERS: tuple[Callable[[np.ndarray, float, random.Random], np.ndarray], ...] = (
    _blank, _lost, _blur, _noise, _checker, _ghost, _fade, _shuffle,
)  # fmt: skip


def random_caption(rng: random.Random) -> tuple[Scene, str]:
    """A scene and its caption."""
    scene = random_scene(rng, random_kind(rng))
    return scene, caption(scene)
