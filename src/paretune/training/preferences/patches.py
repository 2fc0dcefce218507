"""How alike the patches of two samples are, from which PatchDPO weighs a fit.

A patch's features are the latents of its neighbourhood: the published form takes those of an image tower,
which a recipe's rewards do not give. Cosines of latents lie close to 1, so that by themselves they would
give nearly all weight to the worse sample. A patch's quality is therefore its rank among the patches of the
set: the share of them that have no greater cosine.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.nn.functional import normalize, unfold

from .builders import Made, Maker, from_rollouts
from .sets import PreferenceSet

AROUND = 3  # patches on a side whose latents are the features of the one in the middle


def patch_quality(sample: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """For each patch of a sample the cosine with the most similar patch of a reference, in [0, 1].

    [n, C, h, w] or packed [n, N, C] -> [n, S]. A sample compared with itself has 1 everywhere.
    """
    cosine = _features(sample) @ _features(reference).transpose(1, 2)
    return cosine.amax(2).clamp(0, 1)


def ranked(cosine: torch.Tensor) -> torch.Tensor:
    """The share of all values that are not greater than each one: uniform in (0, 1]; equal ones are all 1.

    Values that differ by less than rounding errors count as equal.
    """
    rounded = (cosine * 1e5).round()
    order = rounded.flatten().sort().values
    return torch.searchsorted(order, rounded, right=True).to(cosine.dtype) / len(order)


def _features(latents: torch.Tensor) -> torch.Tensor:
    """Unit vectors, [n, S, D]."""
    if latents.ndim == 4:
        latents = unfold(latents, AROUND, padding=AROUND // 2).transpose(1, 2)
    return normalize(latents, dim=2)


def patch_lists(maker: Maker, generator: torch.Generator) -> Made:
    """The best and the worst sample of each group, with the weights of PatchDPO.

    The best is fitted where it has no like in the other; the other where it is like the best.
    """
    made = from_rollouts(maker, generator)
    if made.lists is None:
        return made
    return Made(weighted(made.lists), made.facts)


def weighted(lists: PreferenceSet) -> PreferenceSet:
    """The set of pairs with the weights of their patches, [M, S]."""
    best, other = lists.clean[0::2], lists.clean[1::2]
    quality = torch.stack([1 - ranked(patch_quality(best, other)), ranked(patch_quality(other, best))], 1)
    return replace(lists, quality=quality.flatten(0, 1))
