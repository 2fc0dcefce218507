"""ArmoRM's rewards of answers (arXiv 2406.12845): nineteen values, and the sum that a gate weighs.

The model is a Llama with a linear layer of 19 values, a gate on the prompt's last token, and a matrix that
takes the length out of the values. On the hub it is code of its own, which never runs here: these few layers
are written after its authors' description (github RLHFlow/RLHF-Reward-Modeling, armo-rm, Apache-2.0).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from paretune.foreign import loading as foreign
from paretune.foreign.chat import render_chats
from paretune.types import ParetuneError, Prompt, turns_of

from ..hub import frozen
from ..pinned import pinned

MODEL = "RLHFlow/ArmoRM-Llama3-8B-v0.1"
SCORE = "score"
ATTRIBUTES = (
    "helpsteer-helpfulness", "helpsteer-correctness", "helpsteer-coherence", "helpsteer-complexity",
    "helpsteer-verbosity", "ultrafeedback-overall_score", "ultrafeedback-instruction_following",
    "ultrafeedback-truthfulness", "ultrafeedback-honesty", "ultrafeedback-helpfulness", "beavertails-is_safe",
    "prometheus-score", "argilla-overall_quality", "argilla-judge_lm", "code-complexity", "code-style",
    "code-explanation", "code-instruction-following", "code-readability",
)  # fmt: skip
ANSWER = "<|start_header_id|>assistant<|end_header_id|>\n\n"  # begins an answer in Llama 3's template
TURN = f"<|eot_id|>{ANSWER}"


class ArmoRM:
    """ArmoRM's heads: "score", the gated sum, and its values `ATTRIBUTES`. One pass gives all.

    A higher helpsteer-verbosity is a longer answer. max_length: tokens of prompt and answer; longer ones are
    cut at the beginning. revision: the commit of `model`.
    """

    name, higher_is_better = "armorm", True
    range = (-float("inf"), float("inf"))
    heads, usual_head = (SCORE, *ATTRIBUTES), SCORE

    def __init__(
        self,
        model: str = MODEL,
        max_length: int = 4096,
        dtype: str = "bfloat16",
        device: str | None = None,
        revision: str | None = None,
    ) -> None:
        from transformers import AutoTokenizer

        self._what, self._longest = f"reward model {model}", max_length
        commit = pinned(model, revision)
        self._tokenizer: Any = foreign.load(AutoTokenizer, model, self._what, **commit)
        if not self._tokenizer.chat_template:
            raise ParetuneError(f"{self._what} has no chat template")
        self._turn: list[int] = self._tokenizer(TURN, add_special_tokens=False)["input_ids"]
        self._network = frozen(_network(), model, device, dtype=dtype, **commit)
        if self._network.config.num_objectives != len(ATTRIBUTES):
            count = self._network.config.num_objectives
            raise ParetuneError(f"{self._what} has {count} values, and ArmoRM has {len(ATTRIBUTES)}")

    @torch.no_grad()
    def score(self, samples: Sequence[str], prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
        """float32 [B] of each head. One answer at a time."""
        turns = [
            [*turns_of(prompt.text), {"role": "assistant", "content": answer}]
            for answer, prompt in zip(samples, prompts, strict=True)
        ]
        rows = torch.stack([self._one(text) for text in render_chats(self._tokenizer, turns, self._what)])
        return dict(zip(self.heads, rows.T, strict=True))

    def _one(self, text: str) -> torch.Tensor:
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"][-self._longest :]
        gate = last_place(ids, self._turn)
        if gate is None:
            raise ParetuneError(f"{self._what}: a prompt and its answer are more than {self._longest} tokens")
        row = torch.tensor([ids], device=self._network.device)
        values, score = self._network(row, gate)
        return torch.cat([score[None], values]).float().cpu()


def last_place(ids: Sequence[int], pattern: Sequence[int]) -> int | None:
    """Where a row of tokens stands in a text for the last time, or None."""
    size = len(pattern)
    found = [i for i in range(len(ids) - size + 1) if list(ids[i : i + size]) == list(pattern)]
    return found[-1] if found else None


@functools.cache
def _network() -> Any:
    """The class of the network, under the names of the published weights."""
    from transformers import LlamaModel, LlamaPreTrainedModel

    class Gate(nn.Module):
        """softmax(layers(x) / temperature) times a learned number."""

        def __init__(self, config: Any) -> None:
            super().__init__()
            self.temperature = float(getattr(config, "gating_temperature", 10))
            hidden, count = getattr(config, "gating_hidden_dim", 1024), getattr(config, "gating_n_hidden", 3)
            sizes = [config.hidden_size, *[hidden] * count, config.num_objectives]
            self.layers = nn.ModuleList(
                nn.Linear(before, after) for before, after in pairwise(sizes)
            )
            self.logit_scale = nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers[:-1]:
                x = layer(x).relu()
            return torch.softmax(self.layers[-1](x) / self.temperature, dim=-1) * self.logit_scale

    class Gated(LlamaPreTrainedModel):
        """A Llama with the values of its last token and their gated sum."""

        def __init__(self, config: Any) -> None:
            config.num_objectives = getattr(config, "num_objectives", len(ATTRIBUTES))
            super().__init__(config)
            self.model = LlamaModel(config)
            self.regression_layer = nn.Linear(config.hidden_size, config.num_objectives, bias=False)
            self.reward_transform_matrix = nn.Parameter(torch.eye(config.num_objectives))
            self.gating = Gate(config)
            self.post_init()

        def forward(self, ids: torch.Tensor, gate: int) -> tuple[torch.Tensor, torch.Tensor]:
            """The values [19] of one text [1, L], and their sum, gated at token `gate`."""
            states = self.model(ids, use_cache=False).last_hidden_state[0]
            values = self.regression_layer(states[-1])
            weights = self.gating(states[gate])
            return values, (weights * (values @ self.reward_transform_matrix)).sum()

    return Gated
