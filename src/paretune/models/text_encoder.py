"""A frozen text encoder of transformers, by which texts are compared: a folder or a hub id.

A model with text features (CLIP's) gives those, any other the mean of its last hidden states.
"""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..foreign.loading import load
from ..foreign.silence import quiet
from ..types import ParetuneError
from .checked import load_checked, loading
from .detect import resolve_path


class TextEncoder:
    """See the module. place: the folder or the hub id, for messages too."""

    def __init__(self, place: str) -> None:
        from transformers import AutoModel, AutoTokenizer

        quiet()
        self.place, found, what = place, resolve_path(place), f"--embed {place}"
        with loading(f"{what} cannot be loaded"):
            self.tokenizer: Any = load(AutoTokenizer, found, what)
        self.model: Any = load_checked(AutoModel, found, what, dtype=torch.float32).eval()
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """The vectors of some texts, [N, H]. Raises ParetuneError for one that is too long; none is cut."""
        found = self.tokenizer(list(texts), return_tensors="pt", padding=True)
        most = self._longest()
        if found["input_ids"].shape[1] > most:
            raise ParetuneError(
                f"--embed {self.place}: the text {max(texts, key=len)[:60]!r} has "
                f"{found['input_ids'].shape[1]} tokens, and this encoder reads {most}"
            )
        inputs = {"input_ids": found["input_ids"], "attention_mask": found["attention_mask"]}
        if hasattr(self.model, "get_text_features"):
            features = self.model.get_text_features(**inputs)
            return getattr(features, "pooler_output", features)
        states = self.model(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1)
        return (states * mask).sum(1) / mask.sum(1)

    def _longest(self) -> int:
        config = getattr(self.model.config, "text_config", self.model.config)
        return int(getattr(config, "max_position_embeddings", 0) or 1 << 20)
