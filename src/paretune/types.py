"""The nouns of paretune: frozen dataclasses that every room shares.

Shapes: P prompts, G samples a prompt (the group), B = P*G samples, prompt-major: sample b belongs to
prompt b // G. R rewards. Pictures are float32 [B, 3, H, W] in [0, 1]; clips are [B, T, 3, H, W], so that
clips[:, t] are pictures; texts are a list of B strings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import torch


class ParetuneError(Exception):
    """A mistake of the user's, or of a file: the message is one line that says what to do. Exit code 2."""


class Stopped(Exception):
    """The user asked to stop; what was done is kept, and can go on."""


class Dialogue(str):
    """The text of a prompt of several turns, for people and rewards to read; models read its `turns`.

    turns: {"role": .., "content": ..}, as chat templates take them.
    """

    turns: tuple[Mapping[str, str], ...]

    def __new__(cls, turns: Sequence[Mapping[str, str]]) -> Dialogue:
        """Its text has a paragraph a turn."""
        made = super().__new__(cls, "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in turns))
        made.turns = tuple(turns)
        return made

    def __reduce__(self) -> tuple[type[Dialogue], tuple[tuple[Mapping[str, str], ...]]]:
        """A copy in another process is made of the turns."""
        return Dialogue, (self.turns,)


def turns_of(prompt: str) -> list[dict[str, str]]:
    """A prompt as chat templates take it: the turns of a dialogue, or one of the user's."""
    return [dict(turn) for turn in prompt.turns] if isinstance(prompt, Dialogue) else [
        {"role": "user", "content": prompt}
    ]


@dataclass(frozen=True)
class Prompt:
    """One prompt. metadata: the record it came from (GenEval's JSON, say), as rewards read it."""

    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])


# A batch of whatever a model makes. Only policies and rewards look inside: all others count, cut and pass on.
Samples: TypeAlias = torch.Tensor | list[str]


def take(samples: Samples, index: torch.Tensor) -> Samples:
    """The samples at `index`, [n]."""
    if isinstance(samples, torch.Tensor):
        return samples[index]
    return [samples[int(i)] for i in index]


class Reward(Protocol):
    """What a reward is: any object with these. Scores stay raw; nothing is pre-weighted.

    name: unique in a run. range: the least and the greatest value (may be infinite).
    higher_is_better: the direction; a reward that is a cost says False.

    Two more methods are optional. `applies(prompt) -> bool`: whether it can score a prompt at all, of another
    reward's set too. `check(prompts)`: raises ParetuneError (or any error, whose message is told) for prompts
    of its own set that it cannot score. `rewards.checks` asks them, before a run trains.
    """

    @property
    def name(self) -> str:
        """What the run calls it."""
        ...

    @property
    def range(self) -> tuple[float, float]:
        """The least and the greatest value."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """False for a cost."""
        ...

    # Any: a reward is for one kind of samples, pictures say, and names the type that it takes.
    def score(self, samples: Any, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: pictures or clips in [0, 1], or texts; prompts: B, one a sample. Returns float32 [B].

        Both are the reward's own copies: it may change them.
        """
        ...
