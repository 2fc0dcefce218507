"""Initial vectors of a reward token, which resemble the rows of the model's embedding table."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..types import ParetuneError


def first_rows(
    module: Any, tokenizer: Any, vectors: int, init: str, generator: torch.Generator
) -> nn.Parameter:
    """The initial vectors, [vectors, width], for one embedding table. See `pipelines.new_token`."""
    table = module.get_input_embeddings().weight.detach().float().cpu()
    start = torch.randn(vectors, table.shape[1], generator=generator)
    if init:
        ids = _word_ids(tokenizer, init)
        start = table[ids].mean(0, keepdim=True).expand(vectors, -1)
    length = table.norm(dim=1).mean()
    value = start / start.norm(dim=1, keepdim=True).clamp(min=1e-12) * length
    return nn.Parameter(value.clone().to(module.device))


def _word_ids(tokenizer: Any, words: str) -> list[int]:
    ids = tokenizer(words, add_special_tokens=False)["input_ids"]
    if not ids:
        raise ParetuneError(f"tokens.init: the model's tokenizer has no tokens for {words!r}")
    return ids


def row_scale(module: Any) -> float:
    """The root mean square of a model's embedding table."""
    return float(module.get_input_embeddings().weight.detach().float().pow(2).mean().sqrt())
