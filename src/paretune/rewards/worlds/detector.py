"""Find the coloured shapes of a picture from its pixels alone: the detector behind GenEval's
facts.

Every pixel goes to the nearest colour of a palette (the six colours of shapes, or nothing:
backgrounds, plates, ink, the dark rim, and the background estimated from this picture);
connected pixels of one colour are a blob; a blob is the shape whose template fits its soft
outline best, or nothing where none fits. Letters and plates of a sign have no shape's colour, so
its band drops out by itself.

Shapes: B pictures of 32x32; K templates on a window of W x W pixels.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage

WINDOW, HALF = 17, 8
MIN_AREA, MAX_AREA = 8, 190
MIN_FIT = 0.75
DIAMETERS = range(5, 15)
RIM = (60, 50, 70)
# No chain of pixels crosses from one picture to the next; within a picture corners do not connect.
_CONNECTED = np.zeros((3, 3, 3), bool)
_CONNECTED[1] = ndimage.generate_binary_structure(2, 1)


@dataclass(frozen=True)
class Detection:
    """One shape found: its name, its colour's name, its centre in pixels and its area in pixels."""

    shape: str
    color: str
    x: float
    y: float
    area: int


def detect_shapes(picture: torch.Tensor) -> list[Detection]:
    """The shapes of one picture, [3, 32, 32] in [0, 1]."""
    return detect_batch(picture[None])[0]


def detect_batch(pictures: torch.Tensor) -> list[list[Detection]]:
    """The shapes of B pictures, [B, 3, 32, 32] in [0, 1], a list for each."""
    names, table = _palette()
    pixels = pictures.detach().to("cpu", torch.float32).permute(0, 2, 3, 1).numpy() * 255
    colors = _nearest_color(pixels)
    # With a margin of repeated pixels around it, no window ends outside of a picture.
    margin = ((0, 0), (HALF + 2, HALF + 2), (HALF + 2, HALF + 2))
    padded, taken = np.pad(pixels, (*margin, (0, 0)), mode="edge"), np.pad(colors >= 0, margin)
    found: list[list[Detection]] = [[] for _ in range(len(pictures))]
    for index, color in enumerate(names):
        # Without an output array of the caller's, it is always the pair.
        labels, count = cast(
            "tuple[np.ndarray, int]", ndimage.label(colors == index, structure=_CONNECTED)
        )
        if count == 0:
            continue
        where = labels.nonzero()
        owner = labels[where]
        areas = np.bincount(owner, minlength=count + 1)
        centres = np.stack([np.bincount(owner, axis) for axis in where], 1) / areas.clip(1)[:, None]
        labels = np.pad(labels, margin)
        for label in np.nonzero((areas >= MIN_AREA) & (areas <= MAX_AREA))[0]:
            b, y, x = centres[label]
            b, row, col = round(b), round(y) + 1, round(x) + 1  # the window's corner, padded
            crop = (b, slice(row, row + WINDOW + 2), slice(col, col + WINDOW + 2))
            name = _recognise(padded[crop], labels[crop] == label, taken[crop], table[index])
            if name is not None:
                found[b].append(Detection(name, color, float(x), float(y), int(areas[label])))
    return found


def _recognise(
    pixels: np.ndarray, inside: np.ndarray, taken: np.ndarray, color: np.ndarray
) -> str | None:
    """The shape of the template that fits a blob best, or None where none fits.

    pixels: [W + 2, W + 2, 3] around the blob; inside, taken: bool, this blob and every blob there.
    The fit is 1 - |coverage - template|^2 / (|coverage|^2 + |template|^2), over a pixel of shift.
    """
    names, templates, energies = _templates()
    # An edge pixel is a blend with what lies behind: the ground, or the shape's dark rim.
    grounds = (_ground(pixels, inside, taken), np.array(RIM, np.float32))
    covers = np.stack([_coverage(pixels, inside, color, ground) for ground in grounds])
    seen = sliding_window_view(covers, (WINDOW, WINDOW), axis=(1, 2)).reshape(2 * 9, -1)
    common = templates @ seen.T
    fit = (2 * common / (energies[:, None] + (seen**2).sum(1))).max(1)
    best = int(fit.argmax())
    return names[best] if fit[best] >= MIN_FIT else None


def _ground(pixels: np.ndarray, inside: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """The colour that a blob lies on: the median of a frame three pixels outside its box. [3]."""
    ys, xs = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    top, bottom = max(ys[0] - 3, 0), min(ys[-1] + 3, len(inside) - 1)
    left, right = max(xs[0] - 3, 0), min(xs[-1] + 3, len(inside) - 1)
    frame = np.zeros_like(inside)
    frame[[top, bottom], left : right + 1] = True
    frame[top : bottom + 1, [left, right]] = True
    free = frame & ~taken
    return np.median(pixels[free], 0) if free.any() else np.array(RIM, np.float32)


def _coverage(
    pixels: np.ndarray, inside: np.ndarray, color: np.ndarray, ground: np.ndarray
) -> np.ndarray:
    """How much of each pixel the shape covers, if it lies on `ground`. Float32, as `inside`."""
    across, away = color - ground, pixels - ground
    length = max(float(across @ across), 1.0)
    share = away @ across / length
    # A pixel off the line between the two colours is a blend of others, not a part of the edge.
    on_line = (away**2).sum(-1) < 1.25 * share**2 * length
    near = inside.copy()
    near[1:] |= inside[:-1]
    near[:-1] |= inside[1:]
    near[:, 1:] |= inside[:, :-1]
    near[:, :-1] |= inside[:, 1:]
    return np.where(inside | (near & on_line), share.clip(0, 1), 0).astype(np.float32)


def _nearest_color(pixels: np.ndarray) -> np.ndarray:
    """Index of each pixel's colour of shapes, or -1. pixels: [B, 32, 32, 3]; int [B, 32, 32]."""
    names, table = _palette()
    # The rim of a picture is background or sign, never a shape, so its median is one of those.
    rim = np.concatenate([pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1]], 1)
    own = np.median(rim, 1)
    # |p - c|^2 without |p|^2, which is the same for every colour
    fixed = (table**2).sum(1) - 2 * pixels @ table.T
    ground = (own**2).sum(1)[:, None, None] - 2 * np.einsum("bhwc,bc->bhw", pixels, own)
    nearest = fixed.argmin(-1)
    is_shape = (nearest < len(names)) & (fixed.min(-1) < ground)
    return np.where(is_shape, nearest, -1)


@functools.cache
def _palette() -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the colours of shapes, and a table [C, 3] of them and then the others."""
    from paretune.worlds.pictures.render import BACKGROUNDS, PLATES
    from paretune.worlds.pictures.scenes import COLORS

    others = [*BACKGROUNDS.values(), *(c for pair in PLATES.values() for c in pair), RIM]
    return tuple(COLORS), np.array([*COLORS.values(), *others], np.float32)


@functools.cache
def _templates() -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names [K], coverages [K, W * W] around their centre of mass, and their squared norms [K]."""
    from paretune.worlds.pictures.render import shape_mask
    from paretune.worlds.pictures.scenes import SHAPES

    names, rows = [], []
    offsets = ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5))
    for shape, diameter, (fx, fy) in itertools.product(SHAPES, DIAMETERS, offsets):
        mask = shape_mask(shape, diameter, fx, fy)
        ys, xs = np.nonzero(mask >= 0.5)
        y, x = round(ys.mean()) - HALF, round(xs.mean()) - HALF
        names.append(shape)
        rows.append(mask[y : y + WINDOW, x : x + WINDOW].ravel())
    templates = np.stack(rows)
    return names, templates, (templates**2).sum(1)
