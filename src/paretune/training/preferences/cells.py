"""Cells: the parts of a sample that are lists of their own, and errors as means over each.

Latents [n, C, h, w] of pictures, [n, N, C] packed into tokens, [n, C, t, h, w] of clips.
"""

from __future__ import annotations

import torch


def cell_errors(velocity: torch.Tensor, target: torch.Tensor, cells: str) -> torch.Tensor:
    """The mean squared error of every cell. [n, S], S = 1 for "whole"."""
    return cell_means((velocity - target) ** 2, cells)


def cell_means(values: torch.Tensor, cells: str) -> torch.Tensor:
    """Means over the elements of each cell. [n, ..] -> [n, S]."""
    if cells == "whole":
        return values.flatten(1).mean(1, keepdim=True)
    if cells == "frames":
        return values.mean((1, 3, 4))
    return values.mean(2) if values.ndim == 3 else values.mean(1).flatten(1)

