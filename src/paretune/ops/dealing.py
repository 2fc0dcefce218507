"""How many prompts of an epoch are drawn from each prompt set.

N sets of L_1 .. L_N prompts; an epoch of P prompts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def deal(count: int, lengths: Sequence[int], generator: torch.Generator) -> list[int]:
    """How many of P = `count` prompts are drawn from each of N sets: P // N, and one more for P % N sets.

    Those sets are chosen at random. A shorter set gives all its prompts, and no other set makes up for it.

    Args:
        count: P.
        lengths: the number of prompts of each set.
        generator: chooses the sets that give one more.
    """
    sizes = [count // len(lengths)] * len(lengths)
    if len(sizes) > 1:  # the remainder goes to sets that are chosen at random
        for i in torch.randperm(len(sizes), generator=generator)[: count % len(sizes)]:
            sizes[int(i)] += 1
    return [min(size, length) for size, length in zip(sizes, lengths, strict=True)]


def dealt_always(count: int, lengths: Sequence[int]) -> int | None:
    """The sum of what `deal` returns if it does not depend on the random choice, else None."""
    even, left = divmod(count, len(lengths))
    takes_more = [length > even for length in lengths]
    if left and any(takes_more) and not all(takes_more):
        return None
    return sum(min(even, length) for length in lengths) + (left if all(takes_more) else 0)
