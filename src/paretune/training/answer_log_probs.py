"""A language model's distribution at every position of given answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

NOTHING = -1  # after an answer's end


def answer_log_probs(
    policy: Any, prompts: Sequence[Sequence[int]], answers: Tensor, vectors: Tensor | None = None
) -> Tensor:
    """The log-probabilities of V words at each position of B answers, at the temperature they are drawn at.

    Args:
        policy: a language model.
        prompts: the tokens of B prompts, as `prompt_ids` gives them.
        answers: [B, A], filled up with NOTHING, where the result means nothing.
        vectors: those of reward tokens in the prompts.

    Returns:
        float32 [B, A, V].
    """
    rows = [
        [*prompt, *(one for one in answer if one != NOTHING)]
        for prompt, answer in zip(prompts, answers.tolist(), strict=True)
    ]
    logits = policy.logits(rows, vectors)
    first = torch.tensor([len(prompt) - 1 for prompt in prompts])
    places = (first[:, None] + torch.arange(answers.shape[1])).clamp(max=logits.shape[1] - 1)
    said = logits[torch.arange(len(rows))[:, None], places]
    return (said / policy.settings.temperature).log_softmax(2)
