"""Independent judges of clips: the questions of `video`, answered by other means, frame by frame yes or no.

The visual judge outlines the shape and looks at the outline's proportions, where the reward fits drawings.
The motion judge slides whole frames over each other, where the reward follows a centre. Nothing trains on
them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from paretune.types import Prompt

from ..checks import Checked
from .tracking import track
from .video import COLORS, SHAPES, _checked, _fact, _velocity, check_facts

COLOR_TOLERANCE = 0.22  # of the distance of two colours in [0, 1]^3
FUZZ = 2.5  # half-covered pixels for each pixel of the outline's width and height: a sharp edge has fewer
LEAST_AREA = 20
STRIDE = 2  # frames between the two that are compared
MISS = 0.45  # pixels a frame
FADE = 0.25  # how much the shape's strength may change


class VisualJudge(Checked):
    """The share of frames that show the captioned shape, in its colour, with sharp edges."""

    name = "visual_judge"
    range = (0.0, 1.0)
    higher_is_better = True

    @staticmethod
    def check(prompts: Sequence[Prompt]) -> None:
        """Refuse a prompt whose record lacks shape or color."""
        check_facts(prompts, 'shape', 'color')

    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: [B, T, 3, H, W] in [0, 1]; prompts of the world `clips`. Returns float32 [B]."""
        clips = _checked(samples)
        weights = track(clips).weights
        rows = []
        for clip, weight, prompt in zip(clips, weights, prompts, strict=True):
            asked = (_fact(prompt, "shape", SHAPES), _fact(prompt, "color", COLORS))
            seen = [_look(f, w) for f, w in zip(clip, weight, strict=True)]
            rows.append(sum(found == asked for found in seen) / len(seen))
        return torch.tensor(rows)


class MotionJudge(Checked):
    """The share of frames after which all has moved as the caption says, no weaker and no stronger."""

    name = "motion_judge"
    range = (0.0, 1.0)
    higher_is_better = True

    @staticmethod
    def check(prompts: Sequence[Prompt]) -> None:
        """Refuse a prompt whose record lacks direction or speed."""
        check_facts(prompts, 'direction', 'speed')

    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: [B, T, 3, H, W] in [0, 1]; prompts of the world `clips`. Returns float32 [B]."""
        weights = track(_checked(samples)).weights
        wanted = torch.tensor([_velocity(p) for p in prompts])[:, None]
        earlier, later = weights[:, :-STRIDE], weights[:, STRIDE:]
        miss = (displacement(earlier, later) / STRIDE - wanted).norm(dim=2)
        strength = later.sum((2, 3)) / earlier.sum((2, 3)).clamp(min=1e-6)
        steady = (strength - 1).abs() < FADE
        return ((miss < MISS) & steady).float().mean(1)


def displacement(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """How far the second map is the first one moved: the peak of their correlation, (x, y) in pixels.

    Between pixels by a parabola through the peak and its neighbours. [..., H, W] twice -> [..., 2].
    """
    height, width = first.shape[-2:]
    size = (2 * height, 2 * width)  # so that nothing wraps around
    product = torch.fft.rfft2(first, s=size).conj() * torch.fft.rfft2(second, s=size)
    correlation = torch.fft.irfft2(product, s=size)
    peak = correlation.flatten(-2).argmax(-1)
    y, x = peak // size[1], peak % size[1]
    return torch.stack([_refined(correlation, y, x, 1), _refined(correlation, y, x, 0)], dim=-1)


def _refined(maps: torch.Tensor, y: torch.Tensor, x: torch.Tensor, axis: int) -> torch.Tensor:
    """The peak's coordinate along an axis (1: x, 0: y), between pixels, negative for the upper half."""
    size = maps.shape[-1 if axis else -2]
    at = x if axis else y

    def value(step: int) -> torch.Tensor:
        rows, columns = (y, (x + step) % size) if axis else ((y + step) % size, x)
        return maps.flatten(-2).gather(-1, (rows * maps.shape[-1] + columns)[..., None])[..., 0]

    before, here, after = value(-1), value(0), value(1)
    bend = (before - 2 * here + after).clamp(max=-1e-9)
    shift = (0.5 * (before - after) / bend).clamp(-0.5, 0.5)
    return torch.where(at >= size // 2, at - size, at) + shift


def _look(frame: torch.Tensor, weight: torch.Tensor) -> tuple[str, str] | None:
    """Shape and colour of what a frame shows, or None where it is nothing, fuzzy or no known colour."""
    top = weight.flatten().topk(LEAST_AREA).values.mean()
    inside = weight > top / 2
    area = int(inside.sum())
    if top < 0.1 or area < LEAST_AREA:
        return None
    rows, columns = inside.any(1).nonzero().flatten(), inside.any(0).nonzero().flatten()
    height, width = int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
    partly = (weight > 0.15 * top) & (weight < 0.85 * top)
    if int(partly.sum()) > FUZZ * (height + width):
        return None
    core = frame[:, weight > 0.85 * top].mean(1)
    gaps = {name: float((core - torch.tensor(rgb) / 255).norm()) for name, rgb in COLORS.items()}
    color = min(gaps, key=lambda name: gaps[name])
    if gaps[color] > COLOR_TOLERANCE:
        return None
    middle = float(inside.nonzero()[:, 0].float().mean() - (rows[0] + rows[-1]) / 2) / height
    return _shape(area / (height * width), middle), color


def _shape(extent: float, middle: float) -> str:
    """By how much of its box a shape fills, and how far below the box's middle its mass lies."""
    if extent > 0.9:
        return "square"
    if middle > 0.06:
        return "triangle"
    return "circle" if extent > 0.68 else "cross"
