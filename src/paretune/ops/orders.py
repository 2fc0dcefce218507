"""How often scorers order the same two samples alike: their conflict before any training. Pure Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations


@dataclass(frozen=True)
class Orders:
    """The N x N matrices of N scorers: `alike`, the share of pairs of samples that two order alike, and
    `pairs`, of how many. A share is None where there is no pair that both order."""

    names: tuple[str, ...]
    alike: tuple[tuple[float | None, ...], ...]
    pairs: tuple[tuple[int, ...], ...]


def order_matrix(lists: Iterable[Mapping[str, Sequence[float]]], names: Sequence[str]) -> Orders:
    """Compare scorers on all pairs of samples within each list.

    Args:
        lists: for each list the scores of its samples by scorer, greater is better; a scorer may be missing.
        names: the scorers, in order.

    Pairs that tie by either of two scorers do not count for these two.
    """
    same = {(a, b): 0 for a in names for b in names}
    both = dict(same)
    for scores in lists:
        here = [name for name in names if name in scores]
        for i, j in combinations(range(len(scores[here[0]])) if here else (), 2):
            signs = {name: (scores[name][i] > scores[name][j]) - (scores[name][i] < scores[name][j])
                     for name in here}  # fmt: skip
            for a in here:
                for b in here:
                    both[a, b] += signs[a] * signs[b] != 0
                    same[a, b] += signs[a] * signs[b] > 0
    return Orders(
        tuple(names),
        tuple(tuple(same[a, b] / both[a, b] if both[a, b] else None for b in names) for a in names),
        tuple(tuple(both[a, b] for b in names) for a in names),
    )
