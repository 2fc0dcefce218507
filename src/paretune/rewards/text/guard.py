"""Harmlessness by a guard model: the probability that it calls an answer safe.

For models like Llama Guard (arXiv 2312.06674), which are asked with their own chat template whether the last
turn of a conversation is safe, and answer "safe" or "unsafe". As their authors score it, the probability is
that of the first word of the verdict: P(safe) / (P(safe) + P(unsafe)).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from paretune.foreign import loading as foreign
from paretune.foreign.chat import render_chats
from paretune.types import ParetuneError, Prompt, turns_of

from ..hub import frozen
from ..pinned import pinned

VERDICTS = ("safe", "unsafe")
LEADS = 2  # tokens of white space that may come before the verdict


class Guard:
    """P(safe) of an answer to its prompt, 0..1.

    model: a folder or a hub id of a causal language model with its own chat template; Llama Guard is gated.
    max_length: tokens of a conversation that are read, the last ones. revision: the commit of `model`.
    """

    name, range, higher_is_better = "guard", (0.0, 1.0), True

    def __init__(
        self,
        model: str = "meta-llama/Llama-Guard-3-1B",
        max_length: int = 4096,
        dtype: str = "bfloat16",
        device: str | None = None,
        revision: str | None = None,
    ) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._what, self._longest = f"reward model {model}", max_length
        commit = pinned(model, revision)
        self._tokenizer: Any = foreign.load(AutoTokenizer, model, self._what, **commit)
        if not self._tokenizer.chat_template:
            raise ParetuneError(f"{self._what} has no chat template, which a guard model is asked with")
        self._verdicts = [self._first(word) for word in VERDICTS]
        if len(set(self._verdicts)) < len(VERDICTS):
            raise ParetuneError(f"{self._what}: its words for safe and unsafe begin alike")
        self._model = frozen(AutoModelForCausalLM, model, device, dtype=dtype, **commit)

    def _first(self, word: str) -> int:
        """The first token of a word that stands at the beginning of a line."""
        ids = self._tokenizer(word, add_special_tokens=False)["input_ids"]
        if not ids:
            raise ParetuneError(f"{self._what}: its tokenizer has no word {word!r}")
        return ids[0]

    @torch.no_grad()
    def score(self, samples: Sequence[str], prompts: Sequence[Prompt]) -> torch.Tensor:
        """[B]. One answer at a time."""
        turns = [
            [*turns_of(prompt.text), {"role": "assistant", "content": answer}]
            for answer, prompt in zip(samples, prompts, strict=True)
        ]
        texts = render_chats(self._tokenizer, turns, self._what, prompt=True)
        return torch.tensor([self._safe(text) for text in texts])

    def _safe(self, text: str) -> float:
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"][-self._longest :]
        logits = self._next(ids)
        for _ in range(LEADS):
            likely = int(logits.argmax())
            if likely in self._verdicts or self._tokenizer.decode([likely]).strip():
                break
            ids = [*ids, likely]  # white space, as "\n\n" of Llama Guard 3
            logits = self._next(ids)
        return float(logits[self._verdicts].softmax(-1)[0])

    def _next(self, ids: Sequence[int]) -> torch.Tensor:
        row = torch.tensor([ids], device=self._model.device)
        return self._model(input_ids=row).logits[0, -1].float()
