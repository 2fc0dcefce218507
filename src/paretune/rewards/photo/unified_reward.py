"""UnifiedReward (Wang et al. 2025, arXiv 2503.05236): a vision-language model writes a picture's score.

As Flow-GRPO asks it (flow_grpo/rewards.py, unifiedreward_score_sglang): its question, a picture of 512 x 512
pixels, the likeliest answer, and the number from 1 to 5 after "Final Score:" over 5. An answer without a
number scores 0, as there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files

import torch
from torch.nn import functional

from paretune.types import Prompt

from ..checks import Checked
from .qwen import refuse_tokens, shared_qwen

QUESTION = files("paretune.rewards.photo").joinpath("unified_reward_prompt.txt").read_text(encoding="utf-8")
SIDE = 512
_SCORE = re.compile(r"Final Score:\s*([1-5](?:\.\d+)?)")


class UnifiedReward(Checked):
    """The written score over 5, of pictures of any size.

    model: a Qwen2-VL or Qwen2.5-VL, as a hub id or a folder. tokens: the most that an answer has. dtype: the
    type the network computes in. device: "cuda" where there is one, unless given. revision: `model`'s commit.
    """

    name = "unified_reward"
    range = (0.0, 1.0)
    higher_is_better = True

    def __init__(
        self,
        model: str = "CodeGoat24/UnifiedReward-qwen-7b",
        tokens: int = 256,
        dtype: str = "bfloat16",
        device: str | None = None,
        revision: str | None = None,
    ) -> None:
        self._tokens = tokens
        self._model = shared_qwen(model, dtype, device, revision)

    @staticmethod
    def check(prompts: Sequence[Prompt]) -> None:
        """Refuse a prompt with a token of the chat in it."""
        for prompt in prompts:
            refuse_tokens("unified_reward", prompt.text)

    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: [B, 3, H, W] in [0, 1]; any prompts. Returns float32 [B]. One picture at a time."""
        self.check(prompts)
        shown = functional.interpolate(
            samples.detach().float(), (SIDE, SIDE), mode="bicubic", antialias=True
        ).clamp(0, 1)
        asked = [QUESTION.replace("{prompt}", prompt.text) for prompt in prompts]
        answers = [self._model.answer(s, q, self._tokens) for s, q in zip(shown, asked, strict=True)]
        return torch.tensor([written_score(answer) for answer in answers])


def written_score(answer: str) -> float:
    """The number after the first "Final Score:" over 5; 0 where there is none from 1 to 5.x."""
    found = _SCORE.search(answer)
    return float(found[1]) / 5 if found else 0.0
