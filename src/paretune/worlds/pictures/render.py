"""Draw a scene as 32x32 RGB pixels, in one of several styles.

Arrays are uint8 [H, W, 3]. A style is how the picture looks beyond its facts. Captions do not state it
(except for the endings "fancy" and "plain"), so a base model that is trained on them draws all styles, and a
preference model can prefer some of them.
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from .scenes import COLORS, Scene

SIZE = 32
SIGN_HEIGHT = 11
GLYPH_PITCH = 6
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "cream": (246, 238, 218),
    "sky": (205, 226, 246),
    "grey": (176, 178, 182),
    "navy": (26, 30, 58),
}
# Colours of a sign: its plate and its letters.
PLATES: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "white": ((250, 250, 250), (15, 15, 20)),
    "black": ((20, 20, 24), (245, 245, 245)),
    "sand": ((206, 186, 150), (128, 100, 66)),
}


@dataclass(frozen=True)
class Style:
    """A style. background, plate: keys of the tables above. large: big shapes. outline: a dark outline."""

    background: str
    plate: str
    large: bool
    outline: bool


def random_style(rng: random.Random) -> Style:
    """A random style; all styles are equally likely."""
    return Style(
        rng.choice(list(BACKGROUNDS)),
        rng.choice(list(PLATES)),
        rng.random() < 0.5,
        rng.random() < 0.5,
    )


def render(scene: Scene, style: Style, rng: random.Random) -> np.ndarray:
    """Draw exactly the facts of a scene, uint8 [32, 32, 3]. `rng` chooses positions and sizes."""
    canvas = np.empty((SIZE, SIZE, 3), np.float32)
    canvas[:] = BACKGROUNDS[style.background]
    sign_y, places = layout(scene, rng)
    if scene.word is not None:
        _draw_sign(canvas, scene.word, sign_y, style)
    shapes = [(g.shape, g.color) for g in scene.groups for _ in range(g.count)]
    for (shape, color), (cx, cy, cell) in zip(shapes, places, strict=True):
        _draw_shape(canvas, shape, color, cx, cy, _diameter(cell, style, rng), style)
    return np.clip(canvas, 0, 255).astype(np.uint8)


def layout(scene: Scene, rng: random.Random) -> tuple[int, list[tuple[float, float, int]]]:
    """The first row of the sign, and (x, y, cell size) of each shape in the order of the groups.

    `render` calls this before it uses its rng for anything else, so a copy of that rng gives the same layout.
    """
    top, bottom, sign_y = 0, SIZE, 0
    if scene.word is not None:
        if scene.sign_place == "above":
            top = SIGN_HEIGHT
        elif scene.sign_place == "below":
            sign_y = bottom = SIZE - SIGN_HEIGHT
        else:
            sign_y = (SIZE - SIGN_HEIGHT) // 2 + rng.randint(-1, 1)
    return sign_y, _places(scene, top, bottom, rng)


def _diameter(cell: int, style: Style, rng: random.Random) -> int:
    base = cell - 3 if style.large else round(cell * 0.58)
    return base + (rng.randint(-1, 0) if cell > 12 else 0)


def _places(
    scene: Scene, top: int, bottom: int, rng: random.Random
) -> list[tuple[float, float, int]]:
    """Centres (x, y) and cell sizes, one for each shape in the order of the groups."""
    count = sum(g.count for g in scene.groups)
    if count == 0:
        return []
    if scene.relation:
        return _relation_places(scene.relation, rng)
    if scene.word is not None:
        return _row_places(count, (top + bottom) / 2, rng)
    if count == 1:
        return [(16 + rng.randint(-5, 5), 16 + rng.randint(-5, 5), 16)]
    cells = [(8, 8), (24, 8), (8, 24), (24, 24)]
    rng.shuffle(cells)
    return [(x + rng.randint(-1, 1), y + rng.randint(-1, 1), 16) for x, y in cells[:count]]


def _row_places(count: int, y: float, rng: random.Random) -> list[tuple[float, float, int]]:
    xs = rng.sample((5, 16, 27), count)
    return [(x, y + rng.randint(-2, 2), 11) for x in xs]


def _relation_places(relation: str, rng: random.Random) -> list[tuple[float, float, int]]:
    near, far = 8 + rng.randint(-1, 1), 24 + rng.randint(-1, 1)
    a, b = 16 + rng.randint(-5, 5), 16 + rng.randint(-5, 5)
    first = {
        "left of": [(near, a), (far, b)],
        "right of": [(far, a), (near, b)],
        "above": [(a, near), (b, far)],
        "below": [(a, far), (b, near)],
    }[relation]
    return [(x, y, 16) for x, y in first]


@functools.lru_cache(maxsize=4096)
def shape_mask(shape: str, diameter: int, fx: float, fy: float) -> np.ndarray:
    """Coverage in [0, 1] of a shape whose centre is (16 + fx, 16 + fy), 4x4 samples a pixel. [32, 32]."""
    step = (np.arange(SIZE * 4) + 0.5) / 4
    x, y = np.meshgrid(step - 16 - fx, step - 16 - fy)
    r = diameter / 2
    if shape == "circle":
        inside = x**2 + y**2 <= r**2
    elif shape == "square":
        side = r * 0.9
        inside = (np.abs(x) <= side) & (np.abs(y) <= side)
    elif shape == "triangle":
        inside = (y <= r * 0.9) & (np.abs(x) <= (y + r) / 2 * 1.05)
    elif shape == "cross":
        arm = max(r * 0.36, 1.0)
        inside = ((np.abs(x) <= arm) & (np.abs(y) <= r)) | ((np.abs(y) <= arm) & (np.abs(x) <= r))
    else:
        raise ValueError(f"unknown shape {shape!r}")
    return inside.reshape(SIZE, 4, SIZE, 4).mean((1, 3)).astype(np.float32)


def _draw_shape(
    canvas: np.ndarray, shape: str, color: str, cx: float, cy: float, diameter: int, style: Style
) -> None:
    fx, fy = cx - int(cx), cy - int(cy)
    dx, dy = int(cx) - 16, int(cy) - 16
    if style.outline:
        _blend(canvas, shape_mask(shape, diameter + 2, fx, fy), dx, dy, (60, 50, 70))
    _blend(canvas, shape_mask(shape, diameter, fx, fy), dx, dy, COLORS[color])


def _blend(
    canvas: np.ndarray, mask: np.ndarray, dx: int, dy: int, color: tuple[int, int, int]
) -> None:
    shifted = np.zeros_like(mask)
    ys, xs = slice(max(dy, 0), SIZE + min(dy, 0)), slice(max(dx, 0), SIZE + min(dx, 0))
    from_y, from_x = slice(max(-dy, 0), SIZE - max(dy, 0)), slice(max(-dx, 0), SIZE - max(dx, 0))
    shifted[ys, xs] = mask[from_y, from_x]
    canvas += shifted[..., None] * (np.asarray(color, np.float32) - canvas)


@functools.cache
def glyphs() -> np.ndarray:
    """Coverage of the 26 capitals, [26, 9, 6] in [0, 1]: DejaVu Sans Mono Bold at 9 px."""
    table = load_file(Path(__file__).with_name("glyphs.safetensors"))["glyphs"]
    return table.astype(np.float32) / 255


def _draw_sign(canvas: np.ndarray, word: str, y: int, style: Style) -> None:
    plate, ink = PLATES[style.plate]
    canvas[y : y + SIGN_HEIGHT] = plate
    for i, letter in enumerate(word.upper()):
        mask = glyphs()[ord(letter) - ord("A")]
        x = 1 + i * GLYPH_PITCH
        patch = canvas[y + 1 : y + 1 + mask.shape[0], x : x + GLYPH_PITCH]
        patch += mask[..., None] * (np.asarray(ink, np.float32) - patch)
