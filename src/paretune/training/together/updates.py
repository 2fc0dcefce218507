"""One update's gradient by several processes: the groups are dealt, and the parts' means are joined to one.

The sum over processes of (share of the samples) * (gradient of the mean over them) is the gradient of the
mean over all. A group is never divided, so the groups need not be as many for each process: all take the same
whole number first, and what is left is one group for some of them. The others repeat a group without effect.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from .crew import Crew

Accumulate = Callable[[torch.Tensor], dict[str, float]]


def accumulate_together(
    crew: Crew, accumulate: Accumulate, part: torch.Tensor, group: torch.Tensor,
    parameters: list[torch.nn.Parameter],
) -> dict[str, float]:  # fmt: skip
    """Accumulate the gradient of the mean loss of the samples in `part` in every process's parameters.

    Args:
        crew: the processes.
        accumulate: adds the gradient of the mean loss of some samples, and returns means over them.
        part: the samples of the update.
        group: [B], the group of every sample of the epoch.
        parameters: their gradients are zero or None before.

    Returns:
        The means over all samples in `part`.
    """
    if crew.size == 1:
        return accumulate(part)
    means: dict[str, float] = {}
    for groups, counts in shares(group[part].unique(), crew):
        index = part[torch.isin(group[part], groups)]
        share = len(index) / len(part) if counts else 0.0
        # What was accumulated before is scaled already; the factor at the end is that of this share.
        if share:
            _scale(parameters, 1 / share)
        for name, value in accumulate(index).items():
            means[name] = means.get(name, 0.0) + value * share
        _scale(parameters, share)
    crew.sum_gradients(parameters)
    return crew.sums(means)


def shares(groups: torch.Tensor, crew: Crew) -> list[tuple[torch.Tensor, bool]]:
    """The groups of this process, in one or two shares, and whether each counts.

    All processes get as many shares, of as many groups. A share that does not count is first, because its
    gradient is dropped with all that was accumulated before it.
    """
    each, left = divmod(len(groups), crew.size)
    found = list[tuple[torch.Tensor, bool]]()
    if left:
        counts = crew.rank < left
        place = each * crew.size + crew.rank if counts else 0
        found.append((groups[place : place + 1], counts))
    if each:
        found.append((groups[each * crew.rank : each * (crew.rank + 1)], True))
    return found


def _scale(parameters: list[torch.nn.Parameter], factor: float) -> None:
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if factor:
            parameter.grad.mul_(factor)
        else:  # an overflow times zero would not be zero
            parameter.grad.zero_()
