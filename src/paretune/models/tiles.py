"""Decoding of large latents in overlapping tiles, without visible seams.

A tile is decoded without its surroundings, so two tiles differ where they overlap. A reward model sees a seam
between them, and a policy learns it. Here every tile has the full size, so that normalisation over a tile
sees as much of the sample everywhere; the overlap is wide; within it one tile passes smoothly into the next;
and frames whose past is missing are dropped before. `benchmarks/tile_seams.py` measures what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

Decode = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Axis:
    """How one axis of the latents is cut.

    size, overlap: of the tiles, in latents. scale: pixels, or frames, that a latent is decoded to. causal:
    whether a tile's first latent is decoded to one frame alone. warm_up: latents at the beginning of a tile,
    except the first tile, that are decoded and dropped.
    """

    size: int
    overlap: int
    scale: int
    causal: bool = False
    warm_up: int = 0

    def starts(self, length: int) -> list[int]:
        """Where the fewest tiles of the full size begin that cover `length` latents, evenly spaced."""
        if length <= self.size:
            return [0]
        count = -(-(length - self.overlap) // (self.size - self.overlap))
        return [i * (length - self.size) // (count - 1) for i in range(count)]


def clip_axes(side: int, space: int, time: int) -> tuple[Axis, Axis, Axis]:
    """The axes [t, h, w] of a causal video autoencoder that compresses 4-fold or less in time.

    side: of a tile in pixels, of which a quarter overlaps. space, time: pixels and frames of a latent. Tiles
    of 8 latents in time begin with two that are dropped, and pass into each other within two more.
    """
    across = Axis(side // space, side // space // 4, space)
    return Axis(8, 5, time, causal=True, warm_up=2), across, across


def decode_in_tiles(decode: Decode, latents: torch.Tensor, axes: Sequence[Axis]) -> torch.Tensor:
    """Decode latents [B, C, ...] in tiles.

    Args:
        decode: decodes a tile.
        latents: all of them.
        axes: of the latents after the first two, in their order.

    Returns:
        The decoded samples. They are those of `decode(latents)` where one tile holds all.
    """
    return _along(decode, latents, list(enumerate(axes, start=2)))


def _along(decode: Decode, latents: torch.Tensor, axes: Sequence[tuple[int, Axis]]) -> torch.Tensor:
    """`decode_in_tiles` along the first of some axes, each with its dimension, and then along the others."""
    if not axes:
        return decode(latents)
    (dim, axis), *others = axes
    size = min(axis.size, latents.shape[dim])
    first, *starts = axis.starts(latents.shape[dim])
    whole = _along(decode, latents.narrow(dim, first, size), others)
    for start in starts:
        tile = _along(decode, latents.narrow(dim, start, size), others)
        dropped = axis.warm_up * axis.scale + axis.causal
        place = start * axis.scale + dropped
        whole = _passed_over(whole, tile.narrow(dim, dropped, tile.shape[dim] - dropped), place, dim)
    return whole


def _passed_over(before: torch.Tensor, after: torch.Tensor, place: int, dim: int) -> torch.Tensor:
    """Two tiles as one. after: it begins at `place` of `before`, into which it passes where both are."""
    both = before.shape[dim] - place
    x = (torch.arange(both, device=before.device, dtype=before.dtype) + 0.5) / both
    share = (x * x * (3 - 2 * x)).view(-1, *[1] * (before.dim() - dim - 1))
    mixed = before.narrow(dim, place, both).lerp(after.narrow(dim, 0, both), share)
    rest = after.narrow(dim, both, after.shape[dim] - both)
    return torch.cat([before.narrow(dim, 0, place), mixed, rest], dim)
