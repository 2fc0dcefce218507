"""What every model offers, whatever it makes: a transformer that takes adapters, and reward tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch

from ..config import ModelConfig
from ..reward_tokens.files import Token


class Policy(Protocol):
    """A loaded model. How it is sampled differs: see `flow.FlowPolicy` and the language models' policy."""

    config: ModelConfig
    transformer: torch.nn.Module
    device: torch.device
    targets: tuple[str, ...]  # the modules that get adapters where the recipe names none
    autocast: bool  # whether the transformer runs under bfloat16 autocast

    def new_token(self, name: str, vectors: int, init: str, generator: torch.Generator) -> Token:
        """A token to begin training with: parameters for every text encoder of the model."""
        ...

    def row_scales(self) -> dict[str, float]:
        """The root mean square of each text encoder's embeddings."""
        ...

    def save_pretrained(self, folder: Path) -> bool:
        """Write the model in its library's format. Returns whether nothing had to be left out."""
        ...
