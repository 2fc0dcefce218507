"""Distillation of language models: reverse KL to the expert of the prompt on the student's own answers.

The student q draws answers y to prompts p at the temperature of the recipe, and the loss is the mean over
their tokens of

    KL(q(. | p, y_<t) || expert(. | p, y_<t)) + anchor KL(q(. | p, y_<t) || start(. | p, y_<t))

which is on-policy distillation with the whole distribution (Agarwal et al. 2024, arXiv 2306.13649).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch

from ...models.causal_lm.policy import CausalLMPolicy
from ...models.loading import open_policy
from ...models.lora import fold
from ..answer_log_probs import NOTHING, answer_log_probs
from .lesson import Part, Pupils, as_expert, attach


class TextLesson:
    """See `lesson.Lesson`. parameters: of the student."""

    def __init__(self, pupils: Pupils, device: str) -> None:
        self.pupils, self.config = pupils, pupils.config
        self.policy = cast(CausalLMPolicy, open_policy(self.config.model, device))
        self.policy.autocast = self.config.train.autocast
        self.texts = [p.text for p in pupils.prompts]
        self.asked = self.policy.prompt_ids(self.texts, ())
        if pupils.parents:
            fold(self.policy.transformer, pupils.parents)
        self.parameters = attach(self.policy.transformer, pupils)
        self.policy.transformer.to(self.policy.device)

    @torch.no_grad()
    def draw(self, index: torch.Tensor, generator: torch.Generator) -> TextBatch:
        """See `lesson.Lesson`."""
        seed = int(torch.randint(1 << 62, (1,), generator=generator))
        texts = [self.texts[int(i)] for i in index]
        # The batch of the evaluation: random numbers depend on it, and must not on the micro-batch.
        rows = self.policy.answer_ids(texts, seed, self.config.evaluate.batch_size)
        longest = max(1, *map(len, rows))
        answers = torch.tensor([row + [NOTHING] * (longest - len(row)) for row in rows])
        return TextBatch(self, answers, index, self.pupils.owner[index])


@dataclass(frozen=True)
class TextBatch:
    """B answers [B, A] to the prompts `index` [B], and the experts of these prompts [B]."""

    lesson: TextLesson
    answers: torch.Tensor
    index: torch.Tensor
    owner: torch.Tensor

    def parts(self, chosen: torch.Tensor) -> Iterator[Part]:
        """See `lesson.Batch`. The distance is that of log-probabilities, squared; a token's size is 1."""
        pupils, owner = self.lesson.pupils, self.owner[chosen]
        weight = pupils.settings.anchor
        targets: dict[int, torch.Tensor] = {}
        for number in owner.unique().tolist():
            rows = (owner == number).nonzero().flatten()
            with torch.no_grad(), as_expert(self.lesson.policy, number):
                targets |= dict(zip(rows.tolist(), self._log_probs(chosen[rows]), strict=True))
        start = None
        if weight:
            with torch.no_grad(), as_expert(self.lesson.policy, None):
                start = self._log_probs(chosen)
        student = self._log_probs(chosen)
        target = torch.stack([targets[row] for row in range(len(chosen))])
        loss = self._shares(student, student - target, chosen).sum()
        if start is not None:
            loss = loss + weight * self._shares(student, student - start, chosen).sum()
        apart = self._shares(student.detach(), (student.detach() - target).square(), chosen)
        said = self.answers != NOTHING
        size = said[chosen].sum(1) / said.sum()
        yield Part(loss, pupils.by_expert(apart, owner), pupils.by_expert(size, owner))

    def _shares(self, q: torch.Tensor, value: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """The shares of the B samples `chosen` in the mean of E_q[value] over all answers' tokens, [B]."""
        said = (self.answers[chosen] != NOTHING).to(q.device)
        return ((q.exp() * value).sum(2) * said).sum(1) / int((self.answers != NOTHING).sum())

    def _log_probs(self, rows: torch.Tensor) -> torch.Tensor:
        """The log-probabilities of whichever adapter is active, [B, A, V]."""
        asked = [self.lesson.asked[int(i)] for i in self.index[rows]]
        return answer_log_probs(self.lesson.policy, asked, self.answers[rows])
