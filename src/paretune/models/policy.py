"""The interface of every model: a transformer that takes adapters, and reward tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch

from ..config import ModelConfig
from ..reward_tokens.files import Token


class Policy(Protocol):
    """A loaded model. `flow.FlowPolicy` and `causal_lm.policy.CausalLMPolicy` add how it is sampled."""

    config: ModelConfig
    transformer: torch.nn.Module
    device: torch.device
    targets: tuple[str, ...]  # the modules that get adapters by default
    autocast: bool  # whether the transformer runs under autocast

    def new_token(self, name: str, vectors: int, init: str, generator: torch.Generator) -> Token:
        """A new token to train: parameters for every text encoder of the model. See `pipelines.new_token`."""
        ...

    def row_scales(self) -> dict[str, float]:
        """The root mean square of each text encoder's embeddings."""
        ...

    def save_pretrained(self, folder: Path) -> bool:
        """Write the model in its library's format. Returns whether it is complete."""
        ...
