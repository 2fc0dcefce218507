"""The baseline of Diffusion-KTO of an update that several processes share.

It is that of `ops.preference_losses.kto_baseline`, of all lists of the update: half the sum of the two
classes' mean implicit rewards, without gradient. Each process computes the rewards of its own lists.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..together.crew import Crew
from ..together.updates import shares

# The samples' numbers, of whole lists -> their implicit rewards and whether they are desired ones, [n] each.
Rewards = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def shared_baseline(part: torch.Tensor, group: torch.Tensor, rewards: Rewards, crew: Crew) -> float:
    """The baseline of an update, the same in all processes.

    Args:
        part: the samples of the update.
        group: [B], the list of every sample of the epoch.
        rewards: called for this process's own lists.
        crew: the processes.
    """
    sums: dict[str, float] = dict.fromkeys(("good", "good samples", "bad", "bad samples"), 0.0)
    for groups, counts in shares(group[part].unique(), crew):
        r, good = rewards(part[torch.isin(group[part], groups)])
        if counts:
            for name, rows in (("good", good), ("bad", ~good)):
                sums[name] += float(r[rows].double().sum())
                sums[f"{name} samples"] += float(rows.sum())
    of_all = crew.sums(sums)
    classes = [
        of_all[name] / of_all[f"{name} samples"] for name in ("good", "bad") if of_all[f"{name} samples"]
    ]
    return sum(classes) / len(classes)
