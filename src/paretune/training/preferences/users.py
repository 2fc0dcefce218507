"""Lists of users: one model for several of them, which a token in the prompt identifies (PPD, 2501.06655).

Each reward is a user, whose token is its name before the prompt (`captions.with_user`). The paper's users are
embeddings of a few of their choices, read by attention of their own.
"""

from __future__ import annotations

import torch

from .builders import Made, Maker, extremes, finished, flat, rollout
from .sets import PreferenceSet


def user_lists(maker: Maker, generator: torch.Generator) -> Made:
    """The best and the worst sample of each group for one user, drawn of those whose reward applies to it.

    A user is drawn as often as its reward's weight says.

    A share `drop` of the lists has the plain prompt, so that the model also learns it without a user.
    """
    drawn, _, facts = rollout(maker, generator)
    mixture = maker.learner.mixture
    better = mixture.oriented(drawn.scores)
    user = torch.multinomial(mixture.shares(drawn.scores.applies).T, 1, generator=generator)[:, 0]
    score = better[user, torch.arange(len(user))]
    rows = extremes(score)
    samples = (torch.arange(len(score))[:, None] * score.shape[1] + rows).flatten()
    told = torch.rand(len(user), generator=generator) >= maker.options.drop
    number = drawn.index + told * (1 + user) * len(maker.learner.mixture.prompts)
    lists = PreferenceSet(
        2, drawn.trajectories.clean[samples], number.repeat_interleave(2), flat(score, rows),
        prompt=drawn.index,
    )  # fmt: skip
    return finished(lists, maker, facts)
