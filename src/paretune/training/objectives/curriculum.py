"""Curricula: which records an epoch draws from, by their `stage`, 1 the easiest (Curry-DPO, 2403.07230).

    rounds   round r draws stage r. Its reference is the round's start, the model of the stage before.
    epochs   epoch e of E draws stage ceil(e S / E) of S. The reference stays.

A set of prompts has its own stages, counted from its first; after its last stage that one is drawn again.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ...data.answer_lists import read_answers
from ...types import ParetuneError, Prompt


def stages_of(prompts: Sequence[Prompt]) -> list[int]:
    """The stage of every record. Raises ParetuneError for one that says none."""
    found: list[int] = []
    for prompt in prompts:
        stage = read_answers(prompt).stage
        if stage is None:
            raise ParetuneError(
                f'objective.options.curriculum: the prompt {prompt.text[:60]!r} has no "stage" in its '
                "record; `paretune pairs --form ladder` writes them"
            )
        found.append(stage)
    return found


def drawn_from(
    kind: str, sets: Sequence[Sequence[Prompt]], round_: int, epoch: int, epochs: int
) -> torch.Tensor | None:
    """Whether each prompt may be drawn, bool [all prompts of the sets]; None where all may.

    Args:
        kind: none, rounds or epochs.
        sets: the prompts of each set.
        round_: from 1.
        epoch: from 0.
        epochs: of the expert.
    """
    if kind == "none":
        return None
    allowed: list[bool] = []
    for prompts in sets:
        stages = stages_of(prompts)
        now = _stage(kind, sorted(set(stages)), round_, epoch, epochs)
        allowed += [stage == now for stage in stages]
    return torch.tensor(allowed)


def stages_drawn(
    kind: str, prompts: Sequence[Prompt], round_: int, epochs: int, begin: int = 0
) -> set[int]:
    """The stages that the epochs of an expert draw, from epoch `begin` on. kind: rounds or epochs."""
    order = sorted(set(stages_of(prompts)))
    return {_stage(kind, order, round_, epoch, epochs) for epoch in range(begin, epochs)}


def _stage(kind: str, order: Sequence[int], round_: int, epoch: int, epochs: int) -> int:
    """The stage of an epoch, among the stages `order`."""
    step = round_ if kind == "rounds" else -(-(epoch + 1) * len(order) // epochs)
    return order[min(step, len(order)) - 1] if order else 0


def check_stages(name: str, prompts: Sequence[Prompt], count: int) -> None:
    """Raise ParetuneError if some stage has fewer records than an epoch draws, since all epochs are alike.

    Args:
        name: of the reward, for the message.
        prompts: of its set.
        count: the records that an epoch draws of it.
    """
    stages = stages_of(prompts)
    for stage in sorted(set(stages)):
        size = stages.count(stage)
        if size < min(count, len(prompts)):
            raise ParetuneError(
                f"objective.options.curriculum: stage {stage} of {name} has {size} records, and an epoch "
                f"draws {min(count, len(prompts))}: lower train.prompts_per_epoch to {size}"
            )
