"""How the prompts of an epoch are dealt to the sets that they are drawn from.

N sets of L_1 .. L_N prompts; an epoch of P prompts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def deal(count: int, lengths: Sequence[int], generator: torch.Generator) -> list[int]:
    """How many of P = `count` prompts each of N sets gives: P // N, one more where the lot falls.

    A set that is shorter gives what it has, and no other makes up for it.
    """
    sizes = [count // len(lengths)] * len(lengths)
    if len(sizes) > 1:  # what cannot be dealt evenly goes to sets drawn by lot
        for i in torch.randperm(len(sizes), generator=generator)[: count % len(sizes)]:
            sizes[int(i)] += 1
    return [min(size, length) for size, length in zip(sizes, lengths, strict=True)]


def dealt_always(count: int, lengths: Sequence[int]) -> int | None:
    """The sum of what `deal` gives where it is the same whatever the lot, else None."""
    even, left = divmod(count, len(lengths))
    takes_more = [length > even for length in lengths]
    if left and any(takes_more) and not all(takes_more):
        return None
    return sum(min(even, length) for length in lengths) + (left if all(takes_more) else 0)
