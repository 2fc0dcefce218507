"""Mixing of the next-token logits after several prompts into one answer.

p(y) ∝ Π_S p_S(y)^{w_S} with Σ w_S = 1, token by token: a geometric mean of the model's probabilities after
each prompt. For a prompt with and without a reward token this is realignment at decoding time (2402.02992):
if the model with the token is p ∝ p_0 exp(r / β), then scale s approximates, as well as a mean for each token
can, the KL strength β / s.
"""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor


class MixedLogits(LogitsProcessor):
    """Adds the logits of the other prompts to those of the first prompts, which `generate` computes.

    weights: [K], the first prompt's weight first. embeds, mask: of the K - 1 other prompts, [(K - 1) B, T,
    ..]; they have a separate cache.
    """

    def __init__(self, model: Any, weights: Sequence[float], embeds: Tensor, mask: Tensor) -> None:
        self.model, self.weights, self.mask = model, weights, mask
        self.embeds: Tensor | None = embeds
        self.cache: Any = None
        self.takes = inspect.signature(model.forward).parameters

    @torch.no_grad()
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The mixed logits [B, V].

        input_ids: [B, T], whose last column the other prompts have not read yet. scores: [B, V].
        """
        others = self._others(input_ids[:, -1:]).view(-1, *scores.shape)
        mixed = self.weights[0] * scores
        for weight, logits in zip(self.weights[1:], others, strict=True):
            mixed = mixed + weight * logits
        return mixed.masked_fill(scores.isneginf(), -torch.inf)  # forbidden tokens stay forbidden

    def _others(self, last: Tensor) -> Tensor:
        """The logits of the other prompts, [(K - 1) B, V] in float32. last: the newest token, [B, 1]."""
        if self.embeds is not None:  # the first step reads the prompts
            inputs: dict[str, Any] = {"inputs_embeds": self.embeds}
            length, self.embeds = self.embeds.shape[1], None
        else:
            repeats = len(self.mask) // len(last)
            inputs, length = {"input_ids": last.repeat(repeats, 1)}, 1
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        positions = (self.mask.cumsum(1) - 1).clamp(min=0)[:, -length:]
        wanted = {"position_ids": positions, "logits_to_keep": 1}
        inputs |= {name: value for name, value in wanted.items() if name in self.takes}
        out = self.model(
            **inputs, attention_mask=self.mask, past_key_values=self.cache, use_cache=True
        )
        self.cache = out.past_key_values
        return out.logits[:, -1].float()
