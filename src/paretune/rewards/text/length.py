"""How many tokens a reward model of text takes."""

from __future__ import annotations

from typing import Any

from torch import nn

NO_LIMIT = 1_000_000  # a tokenizer without a limit says 10^30
OTHERWISE = 2048


def longest(model: Any, tokenizer: Any, wanted: int | None) -> int:
    """The tokens of a text: as wanted, else as tokenizer and model say; never beyond learned positions."""
    places = _learned(model)
    said: Any = getattr(tokenizer, "model_max_length", None)
    room: Any = getattr(model.config, "max_position_embeddings", None)
    limits = [n for n in (said, room) if isinstance(n, int) and 0 < n < NO_LIMIT]
    length = wanted or min(limits, default=OTHERWISE)
    return length if places is None else min(length, places)


def _learned(model: nn.Module) -> int | None:
    """Learned positions that a text can take; None where positions are not learned.

    RoBERTa and its kin count from behind the padding's, so that some of the table are never a token's.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in {"position_embeddings", "wpe"}:
            unused = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - unused
    return None
