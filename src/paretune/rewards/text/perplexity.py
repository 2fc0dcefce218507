"""How surprising an answer is to a language model: a judge that shows answers which fell apart.

Shapes: B answers, B scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from paretune.foreign import loading as foreign
from paretune.foreign.chat import render_chats
from paretune.foreign.gguf import is_gguf, opened
from paretune.types import Prompt, turns_of

from ..hub import frozen


class Perplexity:
    """exp of the mean negative log-probability of an answer's tokens after its prompt; a cost, 1..inf.

    model: a folder, a hub id, a GGUF file, or smollm2. max_length: tokens of prompt and answer that are read.
    An answer without a token counts as its end token alone.
    """

    name, range, higher_is_better = "perplexity", (1.0, float("inf")), False

    def __init__(self, model: str = "smollm2", max_length: int = 1024, device: str | None = None) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        place = str(opened(model)) if is_gguf(model) else model
        self._what, self._longest = f"reward model {model}", max_length
        self._tokenizer: Any = foreign.load(AutoTokenizer, place, self._what)
        self._model = frozen(AutoModelForCausalLM, place, device)

    @torch.no_grad()
    def score(self, samples: Sequence[str], prompts: Sequence[Prompt]) -> torch.Tensor:
        """[B]. One answer at a time: the result of one does not depend on the padding of others."""
        asked = self._asked(prompts)
        return torch.tensor([self._one(a, text) for a, text in zip(samples, asked, strict=True)])

    def _one(self, answer: str, asked: str) -> float:
        before = self._ids(asked) or [self._tokenizer.eos_token_id]
        own = self._ids(answer)[: self._longest - 1] or [self._tokenizer.eos_token_id]
        ids = torch.tensor([[*before, *own][-self._longest :]], device=self._model.device)
        logits = self._model(input_ids=ids).logits[0, -len(own) - 1 : -1].float()
        told = logits.log_softmax(-1).gather(1, ids[0, -len(own) :, None])
        return float(torch.exp(-told.mean()))

    def _asked(self, prompts: Sequence[Prompt]) -> list[str]:
        if not self._tokenizer.chat_template:
            return [prompt.text for prompt in prompts]
        return render_chats(self._tokenizer, [turns_of(p.text) for p in prompts], self._what, prompt=True)

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]
