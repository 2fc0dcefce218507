"""The nouns of paretune: frozen dataclasses that every room shares.

Shapes: P prompts, G samples a prompt (the group), B = P*G samples, prompt-major: sample b belongs to
prompt b // G. R rewards. Pictures are float32 [B, 3, H, W] in [0, 1]; clips are [B, T, 3, H, W], so that
clips[:, t] are pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch


class ParetuneError(Exception):
    """A mistake of the user's, or of a file: the message is one line that says what to do. Exit code 2."""


@dataclass(frozen=True)
class Prompt:
    """One prompt. metadata: the record it came from (GenEval's JSON, say), as rewards read it."""

    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Reward(Protocol):
    """What a reward is: any object with these. Scores stay raw; nothing is pre-weighted.

    name: unique in a run. range: the least and the greatest value (may be infinite).
    higher_is_better: the direction; a reward that is a cost says False.
    """

    name: str
    range: tuple[float, float]
    higher_is_better: bool

    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: pictures or clips, [B, ...] in [0, 1]; prompts: B, one a sample. Returns float32 [B]."""
        ...
