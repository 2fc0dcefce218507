"""A language model learns a reward token: a soft token after the prompt, distilled from the expert's answers.

The expert gives answers y to prompts p; they are L̄ tokens long on average. q is the distribution of the base
after p and the token. Both distributions are taken at the temperature that answers are drawn at. The loss is

    flow      E[ -Σ_t log q(y_t | p, y_<t) ] / L̄                    cross-entropy, as published
    velocity  E[ Σ_t KL(expert(. | p, y_<t) || q(. | p, y_<t)) ] / L̄   the expert's whole distribution

Both losses have the same expected gradient if the expert drew from that distribution. The second has less
noise and costs one more forward pass. Shapes: B answers of up to A tokens, V words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...files import digest
from ...planning.plan import derive_seed
from ...reward_tokens.files import Token
from ...reward_tokens.language import vectors_of, with_words
from ...types import Prompt, Samples
from ..answer_log_probs import NOTHING, answer_log_probs
from .student import Losses, Student, Weighted
from .teacher import Tensors, draw_once


class TextStudent(Student):
    """The student of a language model.

    answers: the teacher's tokens [S, A], filled up with NOTHING. index: their prompts [S].
    """

    prompts: list[str]
    answers: Tensor
    index: Tensor
    length: float

    def learn_from(
        self, prompts: Sequence[Prompt], folder: Path, inputs: str, should_stop: Callable[[], bool]
    ) -> int:
        """See `Student`. Answers are drawn as in the evaluation."""
        count, size = self.settings.options.samples, self.config.evaluate.batch_size
        self.prompts = [p.text for p in prompts]
        # A prompt that leaves no room for the token is reported before anything is drawn.
        self.asked = self.policy.prompt_ids(self.prompts, self.tokens)
        self.plain = self.policy.prompt_ids(self.prompts, ())
        inputs = digest([inputs, [count, size, self.task.seed], self.prompts])
        drawn = draw_once(folder, inputs, count, size, self._draw_part, should_stop)
        self.answers, self.index = drawn["answers"], drawn["index"]
        self.length = float((self.answers != NOTHING).sum(1).float().mean().clamp(min=1))
        return count

    def _draw_part(self, number: int, samples: Tensor) -> Tensors:
        index, most = samples % len(self.prompts), self.policy.settings.max_tokens
        texts = [self.prompts[int(i)] for i in index]
        with self.teacher.on():
            seed = derive_seed(self.task.seed, "teacher", number)
            rows = self.policy.answer_ids(texts, seed, len(texts))
        return {"answers": torch.tensor([r + [NOTHING] * (most - len(r)) for r in rows]), "index": index}

    def batch(self, chosen: Tensor, generator: torch.Generator) -> Losses:
        """See `Student`. Nothing is random here."""
        return lambda part: self.loss(self.answers[chosen[part]], self.index[chosen[part]])

    def loss(self, answers: Tensor, index: Tensor) -> Tensor:
        """The loss of B answers of the teacher, [B, A]. index: their prompts, [B]."""
        vectors = vectors_of(self.policy.transformer, self.tokens)
        student = self._log_probs(self.asked, answers, index, vectors)
        answers = answers.to(student.device)
        if self.settings.loss == "flow":
            each = -student.gather(2, answers.clamp(min=0)[..., None])[..., 0]
        else:
            with torch.no_grad(), self.teacher.on():
                target = self._log_probs(self.plain, answers, index, None)
            each = (target.exp() * (target - student)).sum(2)
        return (each * (answers != NOTHING)).sum() / (len(answers) * self.length)

    def _log_probs(
        self, asked: list[list[int]], answers: Tensor, index: Tensor, vectors: Tensor | None
    ) -> Tensor:
        """The model's log-probabilities at each position of the answers, [B, A, V]."""
        return answer_log_probs(self.policy, [asked[int(i)] for i in index], answers, vectors)

    def explore(
        self, prompts: Sequence[Prompt], group: int, generator: torch.Generator
    ) -> tuple[Samples, Weighted]:
        """See `Student`. The loss is -A Σ_t log q(y_t) / L̄: GRPO's gradient at its first update."""
        texts, most = [p.text for p in prompts for _ in range(group)], self.policy.settings.max_tokens
        seed = int(torch.randint(1 << 62, (1,), generator=generator))
        size = self.config.evaluate.batch_size
        with torch.no_grad():
            rows = self.policy.answer_ids(texts, seed, size, self.tokens)
        drawn = self.policy.tokenizer.batch_decode(rows, skip_special_tokens=True)
        answers = torch.tensor([row + [NOTHING] * (most - len(row)) for row in rows])
        length = float((answers != NOTHING).sum(1).float().mean().clamp(min=1))
        asked = self.policy.prompt_ids(texts, self.tokens)

        def loss(part: Tensor, advantages: Tensor) -> Tensor:
            vectors = vectors_of(self.policy.transformer, self.tokens)
            log_q = self._log_probs(asked, answers[part], part, vectors)
            own = answers[part].to(log_q.device)
            each = log_q.gather(2, own.clamp(min=0)[..., None])[..., 0] * (own != NOTHING)
            return -(advantages.to(log_q.device) * each.sum(1)).mean() / length

        return drawn, loss

    @torch.no_grad()
    def draw(self, prompts: Sequence[Prompt], seed: int) -> Samples:
        """See `Student`: one answer to each prompt."""
        return self.policy.answer(
            [p.text for p in prompts], seed, self.config.evaluate.batch_size, self.tokens
        )

    def write(self, folder: Path, token: Token) -> list[str]:
        """See `Student`. The model's tokenizer, with the token's words added, is written too."""
        names = super().write(folder, token)
        tokenizer = with_words(self.policy.tokenizer, token.words)
        files = map(Path, tokenizer.save_pretrained(folder))
        return [*names, *(file.name for file in files if file.is_file())]
