"""Weights of lists, and scores on the scales that soft labels need. Both are fixed before training.

L lists of K samples; scores [M, S].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch.nn.functional import cosine_similarity

from ...models.flow import Conditions
from ...ops import preference_losses as losses
from .options import PreferenceOptions
from .sets import PreferenceSet


def widest_gaps(lists: PreferenceSet) -> torch.Tensor:
    """The gap between the best and the worst score of each list, of its first cell. [L]."""
    score = lists.lists(lists.score)[..., 0]
    return score.amax(1) - score.amin(1)


def root_mean_square(values: torch.Tensor) -> torch.Tensor:
    """The standard deviation of gaps of which each is counted with both signs. A scalar above 0."""
    return values.square().mean().sqrt().clamp(min=1e-12)


def by_margin(
    lists: PreferenceSet, options: PreferenceOptions, conditions: Conditions
) -> PreferenceSet:
    """MADPO's weights, of margins in units of the set's gaps."""
    gaps = widest_gaps(lists)
    weight = losses.margin_weights(
        gaps / root_mean_square(gaps), options.least, options.most, options.slope, options.at
    )
    return replace(lists, weight=weight)


def by_meaning(
    lists: PreferenceSet, options: PreferenceOptions, conditions: Conditions
) -> PreferenceSet:
    """Sem-DPO's weights: how far the caption of a list's best sample is from its prompt."""
    assert lists.prompt is not None
    best = lists.lists(lists.score)[..., 0].argmax(1)
    caption = lists.lists(lists.caption).gather(1, best[:, None])[:, 0]
    vectors = text_vectors(conditions)
    distance = 1 - cosine_similarity(vectors[lists.prompt], vectors[caption])
    return replace(lists, weight=losses.semantic_weights(distance, options.alpha))


def text_vectors(conditions: Conditions) -> torch.Tensor:
    """One vector for each caption: the pooled one, or the mean over its tokens. float32 on the CPU."""
    if conditions.pooled is not None:
        return conditions.pooled.float().cpu()
    embeds = conditions.embeds.float()
    mask = torch.ones(embeds.shape[:2], device=embeds.device) if conditions.mask is None \
        else conditions.mask.float()  # fmt: skip
    return ((embeds * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)).cpu()


Weigh = Callable[[PreferenceSet, PreferenceOptions, Conditions], PreferenceSet]
WEIGHTS: dict[str, Weigh] = {"margin": by_margin, "semantic": by_meaning}


def soft_scores(lists: PreferenceSet, delta: float | None) -> torch.Tensor:
    """The scores on the scale of soft labels: [0, 1] over the set, or, with delta, in units of its gaps."""
    if delta is None:
        return losses.scaled(lists.score)
    return delta * lists.score / root_mean_square(widest_gaps(lists))
