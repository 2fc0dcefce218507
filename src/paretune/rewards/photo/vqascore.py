"""VQAScore (Lin et al. 2024, arXiv 2404.01291): how surely a model says "Yes" to what a picture shows.

The score is the chance that the answer begins with "Yes". The paper's own CLIP-FlanT5 has an architecture of
its own that no library here has; its authors' package t2v_metrics offers Qwen2.5-VL for the same score, which
is taken, with the question that t2v_metrics asks it (the paper's is
'Does this figure show "{}"? Please answer yes or no.'). Unlike there, no repetition penalty of the model's
generation settings is applied to the chances.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from paretune.types import ParetuneError, Prompt

from ..checks import Checked
from .qwen import refuse_tokens, shared_qwen

QUESTION = 'Does this image show "{}"?'


class VqaScore(Checked):
    """The chance of "Yes", of pictures of any size.

    model: a Qwen2-VL or Qwen2.5-VL, as a hub id or a folder. question: with {} for the prompt; answer: what
    the answer should begin with, of which the first token counts. dtype: the type the network computes in.
    device: "cuda" where there is one, unless given. revision: the commit of `model`.
    """

    name = "vqascore"
    range = (0.0, 1.0)
    higher_is_better = True

    def __init__(
        self,
        model: str = "Qwen/Qwen2.5-VL-7B-Instruct",
        question: str = QUESTION,
        answer: str = "Yes",
        dtype: str = "bfloat16",
        device: str | None = None,
        revision: str | None = None,
    ) -> None:
        if "{}" not in question:
            raise ParetuneError("vqascore: the question needs {} where the prompt goes")
        self._question = question
        self._model = shared_qwen(model, dtype, device, revision)
        self._token: int = self._model.tokenizer.encode(answer, add_special_tokens=False)[0]

    @staticmethod
    def check(prompts: Sequence[Prompt]) -> None:
        """Refuse a prompt with a token of the chat in it."""
        for prompt in prompts:
            refuse_tokens("vqascore", prompt.text)

    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: [B, 3, H, W] in [0, 1]; any prompts. Returns float32 [B]. One picture at a time."""
        self.check(prompts)
        asked = [self._question.replace("{}", prompt.text) for prompt in prompts]
        chances = [self._model.chances(s, q)[self._token] for s, q in zip(samples, asked, strict=True)]
        return torch.stack(chances)
