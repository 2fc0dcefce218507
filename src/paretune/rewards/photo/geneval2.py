"""GenEval 2's Soft-TIFA (Kamath et al. 2025, arXiv 2512.16853): questions about a picture, one a fact.

Records are the lines of geneval2_data.jsonl (github facebookresearch/GenEval2, CC BY-NC 4.0); `vqa_list` has
pairs of a question and its answer. As in its evaluation.py, a question is asked with "Answer in one word.",
and its score is the chance that the answer begins as one of these: a number in words, with a capital, or in
digits where the question begins with "How many", else yes; each also after a blank. A picture's score is the
mean over its questions, arithmetic or geometric.

The official figures are Qwen3-VL-8B's. That architecture is not read here, so that figures of the Qwen2.5-VL
that answers here are comparable only with each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from paretune.types import ParetuneError, Prompt

from ..checks import Checked
from .qwen import refuse_tokens, shared_qwen

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
MEANS = ("arithmetic", "geometric")


class GenEval2(Checked):
    """Soft-TIFA of pictures of any size.

    model: a Qwen2-VL or Qwen2.5-VL, as a hub id or a folder. mean: "arithmetic" or "geometric" over the
    questions. dtype: the type the network computes in. device: "cuda" where there is one, unless given.
    revision: the commit of `model`.
    """

    name = "geneval2"
    range = (0.0, 1.0)
    higher_is_better = True

    def __init__(
        self,
        model: str = "Qwen/Qwen2.5-VL-7B-Instruct",
        mean: str = "arithmetic",
        dtype: str = "bfloat16",
        device: str | None = None,
        revision: str | None = None,
    ) -> None:
        if mean not in MEANS:
            raise ParetuneError(f"geneval2: mean is {' or '.join(MEANS)}, not {mean!r}")
        self._mean = mean
        self._model = shared_qwen(model, dtype, device, revision)

    @staticmethod
    def check(prompts: Sequence[Prompt]) -> None:
        """Refuse a prompt without questions and answers."""
        for prompt in prompts:
            for question, _ in questions(prompt):
                refuse_tokens("geneval2", question)

    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: [B, 3, H, W] in [0, 1]; prompts with records. Returns float32 [B]."""
        self.check(prompts)
        pairs = zip(samples, prompts, strict=True)
        return torch.tensor([self._one(picture, questions(prompt)) for picture, prompt in pairs])

    def _one(self, picture: torch.Tensor, asked: Sequence[tuple[str, str]]) -> float:
        facts = [self._fact(picture, *pair) for pair in asked]
        if self._mean == "arithmetic":
            return sum(facts) / len(facts)
        return math.exp(sum(math.log(f) for f in facts) / len(facts)) if all(facts) else 0.0

    def _fact(self, picture: torch.Tensor, question: str, answer: str) -> float:
        encode = self._model.tokenizer.encode
        tokens = {encode(text, add_special_tokens=False)[0] for text in beginnings(question, answer)}
        chances = self._model.chances(picture, f"{question} Answer in one word.")
        return min(1.0, float(chances[sorted(tokens)].sum()))


def questions(prompt: Prompt) -> list[tuple[str, str]]:
    """The pairs of a record's `vqa_list`. Raises ParetuneError where they are missing or are no pairs."""
    pairs: Any = prompt.metadata.get("vqa_list")
    if not isinstance(pairs, (list, tuple)) or not pairs or not all(_is_pair(pair) for pair in pairs):
        raise ParetuneError(
            f"geneval2 needs 'vqa_list', pairs of a question and an answer, in the record of the prompt "
            f"{prompt.text!r}: use geneval2_data.jsonl of facebookresearch/GenEval2"
        )
    return [(question, answer) for question, answer in pairs]


def beginnings(question: str, answer: str) -> list[str]:
    """What a right answer begins with."""
    if not question.startswith("How many"):
        return ["Yes", "yes", " yes", " Yes"]
    digits = str(NUMBERS.index(answer) + 1) if answer in NUMBERS else "other"
    return [f"{blank}{text}" for text in (answer, answer.capitalize(), digits) for blank in ("", " ")]


def _is_pair(pair: Any) -> bool:
    whole = isinstance(pair, (list, tuple)) and len(pair) == 2
    return whole and all(isinstance(text, str) and text for text in pair)
