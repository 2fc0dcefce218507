"""Two rewards of a clip that pull apart: how good its frames look, and how well it moves.

They stand in for the two of VideoAlign that DanceGRPO trains on (Liu et al. 2025, arXiv 2501.13918), here
measured on the pixels of the world `clips`. A clip that stands still may be sharp in every frame, and one
that moves as its caption says may be a smear: each scores high on one of the two alone. Prompts carry the
facts of their caption: shape, color, direction, speed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from paretune.types import ParetuneError, Prompt

from ..checks import Checked
from .tracking import Track, track

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40), "green": (40, 160, 70), "blue": (40, 90, 220),
    "yellow": (245, 205, 40), "purple": (150, 60, 190), "orange": (245, 130, 30),
}  # fmt: skip
DIRECTIONS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
SPEEDS = {"slowly": 0.75, "quickly": 2.0}  # pixels a frame
DIAMETERS = (10, 12)
OFFSETS = (-0.5, -0.25, 0.0, 0.25, 0.5)  # pixels around where the shape was found
EXPLAINED = 0.85  # of a perfect drawing's edges: the rest lies between pixels
SPEED_TOLERANCE, SHAKE_TOLERANCE, FLICKER_TOLERANCE = 0.4, 0.6, 0.25
PART = 32  # clips at a time: templates of all of them would fill the memory


class VideoQuality(Checked):
    """How much of each frame's edges a sharp drawing of the captioned shape in its colour explains, as a
    share of what a perfect frame's reaches. In [0, 1], the mean over frames."""

    name = "video_quality"
    range = (0.0, 1.0)
    higher_is_better = True

    @staticmethod
    def check(prompts: Sequence[Prompt]) -> None:
        """Refuse a prompt whose record lacks shape or color."""
        check_facts(prompts, 'shape', 'color')

    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: [B, T, 3, H, W] in [0, 1]; prompts of the world `clips`. Returns float32 [B]."""
        clips = _checked(samples)
        parts = [
            explained(clips[i : i + PART], prompts[i : i + PART]) for i in range(0, len(clips), PART)
        ]
        return (torch.cat(parts) / EXPLAINED).clamp(0, 1).mean(1)


class MotionQuality(Checked):
    """Whether the shape goes where and as fast as the caption says, evenly, and keeps its strength: the
    product of three factors in [0, 1], each a Gaussian of what is wrong. Standing still is a wrong speed."""

    name = "motion_quality"
    range = (0.0, 1.0)
    higher_is_better = True

    @staticmethod
    def check(prompts: Sequence[Prompt]) -> None:
        """Refuse a prompt whose record lacks direction or speed."""
        check_facts(prompts, 'direction', 'speed')

    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: [B, T, 3, H, W] in [0, 1]; prompts of the world `clips`. Returns float32 [B]."""
        found = track(_checked(samples))
        wanted = torch.tensor([_velocity(p) for p in prompts])
        speed = (found.steps.mean(1) - wanted).norm(dim=1) / SPEED_TOLERANCE
        shake = shakiness(found) / SHAKE_TOLERANCE
        flicker = found.mass.std(1) / found.mass.mean(1).clamp(min=1e-6) / FLICKER_TOLERANCE
        there = (found.mass.mean(1) > 1.0).float()  # an empty frame has no motion to speak of
        return there * torch.exp(-0.5 * (speed**2 + shake**2 + flicker**2))


def shakiness(found: Track) -> torch.Tensor:
    """Root mean square of how far the steps are from their mean, in pixels. [B]."""
    steps = found.steps
    return (steps - steps.mean(1, keepdim=True)).square().sum(2).mean(1).sqrt()


def explained(clips: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
    """1 - (edges that the best drawing of the captioned shape leaves) / (those of the frame or the drawing,
    whichever are more). [B, T].

    A drawing has the prompt's shape and colour, one of two diameters, and lies within a pixel of where
    the shape was found.
    """
    found = track(clips)
    colors = torch.tensor([COLORS[_fact(p, "color", COLORS)] for p in prompts]) / 255
    ground = found.backgrounds[:, None, :, None, None]
    change = clips - ground  # [B, T, 3, H, W]
    paint = (colors - found.backgrounds)[:, None, :, None, None]
    energy = edges(change)
    best = torch.full(energy.shape, -torch.inf)
    kinds = [_fact(p, "shape", SHAPES) for p in prompts]
    for diameter in DIAMETERS:
        for dx in OFFSETS:
            for dy in OFFSETS:
                centre = found.places + torch.tensor([dx, dy])
                mask = drawn(kinds, diameter, centre, clips.shape[-2:])[:, :, None]
                drawing = mask * paint
                left, whole = edges(change - drawing), edges(drawing).maximum(energy)
                best = best.maximum(1 - left / whole)
    return best


def edges(images: torch.Tensor) -> torch.Tensor:
    """The squared differences of neighbouring pixels, summed: a blur has few. [B, T, 3, H, W] -> [B, T]."""
    across, down = images.diff(dim=4).square(), images.diff(dim=3).square()
    return across.sum((2, 3, 4)) + down.sum((2, 3, 4))


def drawn(
    kinds: Sequence[str], diameter: int, centres: torch.Tensor, size: Sequence[int]
) -> torch.Tensor:
    """Coverage of a shape a clip, by its signed distance, an edge being a pixel wide. [B, T, H, W]."""
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    # A pixel's middle is half a pixel from its corner, from which centres are not counted.
    dx, dy = x - centres[..., 0, None, None], y - centres[..., 1, None, None]
    out = torch.empty_like(dx)
    for kind in set(kinds):
        rows = torch.tensor([k == kind for k in kinds])
        out[rows] = (0.5 - SHAPES[kind](dx[rows], dy[rows], diameter / 2)).clamp(0, 1)
    return out


def _circle(x: torch.Tensor, y: torch.Tensor, r: float) -> torch.Tensor:
    return (x**2 + y**2).sqrt() - r


def _square(x: torch.Tensor, y: torch.Tensor, r: float) -> torch.Tensor:
    return x.abs().maximum(y.abs()) - 0.9 * r


def _triangle(x: torch.Tensor, y: torch.Tensor, r: float) -> torch.Tensor:
    y = y + 0.267 * r  # its centre of mass lies below the middle that it is drawn around
    slope = (x.abs() - (y + r) / 2 * 1.05) / (1 + 0.525**2) ** 0.5
    return slope.maximum(y - 0.9 * r)


def _cross(x: torch.Tensor, y: torch.Tensor, r: float) -> torch.Tensor:
    arm = max(r * 0.36, 1.0)
    bar = (x.abs() - arm).maximum(y.abs() - r)
    return bar.minimum((y.abs() - arm).maximum(x.abs() - r))


SHAPES = {"circle": _circle, "square": _square, "triangle": _triangle, "cross": _cross}


def _velocity(prompt: Prompt) -> tuple[float, float]:
    """Pixels a frame, (x, y), that the caption asks for."""
    way = DIRECTIONS[_fact(prompt, "direction", DIRECTIONS)]
    speed = SPEEDS[_fact(prompt, "speed", SPEEDS)]
    return way[0] * speed, way[1] * speed


def check_facts(prompts: Sequence[Prompt], *facts: str) -> None:
    """Raise ParetuneError for a prompt whose record lacks one of the facts, or has it of another world."""
    known = {"shape": SHAPES, "color": COLORS, "direction": DIRECTIONS, "speed": SPEEDS}
    for prompt in prompts:
        for fact in facts:
            _fact(prompt, fact, known[fact])


def _fact(prompt: Prompt, fact: str, known: object) -> str:
    value = prompt.metadata.get(fact)
    if not isinstance(value, str) or value not in known:  # type: ignore[operator]
        raise ParetuneError(
            f"the rewards of the world `clips` need a record with {fact}, and the prompt {prompt.text!r} "
            "has none that they know: use a set such as clips/motion-train"
        )
    return value


def _checked(samples: torch.Tensor) -> torch.Tensor:
    """Clips as float32 on the CPU. Raises ParetuneError for pictures."""
    if samples.dim() != 5:
        raise ParetuneError(f"a reward of clips was given pictures of shape {list(samples.shape[1:])}")
    return samples.detach().to("cpu", torch.float32)
