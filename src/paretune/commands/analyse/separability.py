"""How easily the better and the worse answers are separated: by a linear probe of the start's states.

Source: "More is less" (2504.02193): data whose sides a probe tells apart teach that shortcut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from ...data.answer_lists import AnswerList
from ...models.causal_lm.given_answers import states
from ...ops.statistics import (
    Figure,
    accuracy,
    area_under_curve,
    figure,
    fisher_ratio,
    held_out_scores,
    mean_figure,
)
from .measured import groups_of, tokens_of
from .sides import Side

# Of few prompts a resample often holds one alone, whose variances are those of rounding: ratios up to 1e31.
FISHER_PROMPTS = 5


def separability(lists: Sequence[AnswerList], start: Side) -> dict[str, Figure]:
    """Accuracy, area under the curve and Fisher ratio of a probe on sides, and on the commonest sources."""
    with start.at_work() as policy:
        ends = [[tokens_of(policy, r, r.pair[i]) for r in lists] for i in (0, 1)]
        means = torch.stack([state.mean(0) for state in states(policy, [*ends[0], *ends[1]])])
    group, n = groups_of(lists).repeat(2), len(lists)
    sides = torch.tensor([1.0] * n + [-1.0] * n)
    figures = probe("sides", means, sides, group)
    wrote = [record.pair[i].source for i in (0, 1) for record in lists]
    common = [name for name, _ in Counter(wrote).most_common(2)]
    if len(common) == 2:
        kept = torch.tensor([i for i, name in enumerate(wrote) if name in common])
        by_source = torch.tensor([1.0 if wrote[int(i)] == common[0] else -1.0 for i in kept])
        words = f"sources {common[0] or 'unnamed'} and {common[1] or 'unnamed'}"
        figures |= probe(words, means[kept], by_source, group[kept])
    return figures


def probe(what: str, x: Tensor, y: Tensor, group: Tensor) -> dict[str, Figure]:
    """Three figures of a ridge classifier in five folds by prompt. x [N, H]; y [N], 1 or -1."""
    scores = held_out_scores(x, y, group)
    return {
        f"accuracy, {what}": mean_figure(accuracy(scores, y), group),
        f"area under the curve, {what}": figure(
            group, lambda rows: area_under_curve(scores[rows], y[rows])
        ),
        f"Fisher ratio, {what}": figure(
            group, lambda rows: fisher_ratio(scores[rows], y[rows]), least=FISHER_PROMPTS
        ),
    }
