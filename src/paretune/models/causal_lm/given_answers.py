"""What a language model says of answers that are given: log-probabilities, distributions, hidden states.

Shapes: N answers of A_n tokens with their end token; V words. Everything is at temperature 1, in float32, and
in batches of sequences padded on the right.
"""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .answer_ids import answer_ids, as_drawn, check_fits, ending_ids
from .policy import CausalLMPolicy

BATCH = 8


@dataclass(frozen=True)
class Given:
    """The tokens of an answer. before: those of its prompt and of a prefix. own: its own, with the end."""

    before: tuple[int, ...]
    own: tuple[int, ...]


def given_answer(
    policy: CausalLMPolicy, prompt: str, parts: Sequence[str], ends: bool = True, prefix: str = ""
) -> Given:
    """The tokens of an answer as training reads them.

    Args:
        policy: the model.
        prompt: as a user writes it.
        parts: the answer, whole or in steps.
        ends: whether the end token follows.
        prefix: a text between the prompt and the answer.

    Raises:
        ParetuneError: if they do not fit into the model's context.
    """
    before = policy.text_ids(policy.render([prompt]))[0]
    if prefix:
        before = [*before, *answer_ids(policy, as_drawn(policy, [prefix]), [])]
    own = answer_ids(policy, parts if prefix else as_drawn(policy, parts), ending_ids(policy) if ends else [])
    check_fits(policy, prompt, len(before) + len(own))
    return Given(tuple(before), tuple(own))


def log_probs(policy: CausalLMPolicy, answers: Sequence[Given]) -> list[Tensor]:
    """The log-probability of every token of each answer, [A_n]."""
    return list(_each(policy, answers, _own_log_probs))


def distributions(policy: CausalLMPolicy, answers: Sequence[Given]) -> Iterator[Tensor]:
    """The log-probabilities of all words at every token of each answer, [A_n, V], one answer at a time."""
    return _each(policy, answers, lambda given, logits: logits.log_softmax(-1))


def entropies(policy: CausalLMPolicy, answers: Sequence[Given]) -> list[Tensor]:
    """The entropy of the next word at every token of each answer, [A_n]."""
    return [-(p.exp() * p).nan_to_num(0.0).sum(-1) for p in distributions(policy, answers)]


@torch.no_grad()
def states(policy: CausalLMPolicy, answers: Sequence[Given]) -> list[Tensor]:
    """The last hidden state at every token of each answer, [A_n, H]."""
    found: list[Tensor] = []
    for first in range(0, len(answers), BATCH):
        part = answers[first : first + BATCH]
        ids, mask = policy.soft.padded([[*a.before, *a.own] for a in part], left=False)
        out = policy.transformer(
            input_ids=ids, attention_mask=mask, use_cache=False, output_hidden_states=True
        )
        last = out.hidden_states[-1].float().cpu()
        found += [last[i, len(a.before) : len(a.before) + len(a.own)] for i, a in enumerate(part)]
    return found


def _own_log_probs(given: Given, logits: Tensor) -> Tensor:
    own = torch.tensor(given.own)
    return logits.log_softmax(-1).gather(-1, own[:, None]).squeeze(-1)


@torch.no_grad()
def _each(
    policy: CausalLMPolicy, answers: Sequence[Given], read: Callable[[Given, Tensor], Tensor]
) -> Iterator[Tensor]:
    """What `read` makes of each answer and the logits [A_n, V] that foretell its tokens."""
    for first in range(0, len(answers), BATCH):
        part = answers[first : first + BATCH]
        logits = policy.logits([[*a.before, *a.own] for a in part], None).cpu()
        for i, given in enumerate(part):
            start = len(given.before) - 1
            yield read(given, logits[i, start : start + len(given.own)])
