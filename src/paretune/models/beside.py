"""Latents of input pictures beside those of samples in one sequence, where the pictures may differ in size.

Shapes: P pictures; M tokens of the largest; B samples; sizes are [height, width] in tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

Size = tuple[int, int]


def padded(latents: Sequence[torch.Tensor], sizes: Sequence[Size]) -> dict[str, torch.Tensor]:
    """Packed latents of P pictures, each [tokens, D], for `Conditions.more`.

    picture: [P, M, D], those of smaller pictures followed by zeros. picture_size: [P, 2].
    """
    return {
        "picture": pad_sequence(list(latents), batch_first=True),
        "picture_size": torch.tensor(sizes, device=latents[0].device),
    }


def by_size(sizes: torch.Tensor, run: Callable[[torch.Tensor, Size], torch.Tensor]) -> torch.Tensor:
    """Call `run` for the samples of every size of pictures, and put its results in their order.

    sizes: [B, 2]. run: called with the numbers of samples and the size of their pictures.
    """
    found, group = torch.unique(sizes, dim=0, return_inverse=True)
    rows = [(group == number).nonzero().flatten() for number in range(len(found))]
    parts = [run(row, (int(h), int(w))) for row, (h, w) in zip(rows, found.tolist(), strict=True)]
    return torch.cat(parts)[torch.cat(rows).argsort()]
