"""The types that all packages of paretune share.

Shapes: P prompts, G samples per prompt (the group), B = P*G samples, prompt-major: sample b belongs to
prompt b // G. R rewards. Pictures are float32 [B, 3, H, W] in [0, 1]; clips are [B, T, 3, H, W], so that
clips[:, t] are pictures; texts are a list of B strings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import torch


class ParetuneError(Exception):
    """A user's mistake or a faulty file. The message is one line that says what to do. Exit code 2."""


class Stopped(Exception):
    """The user asked the run to stop. Finished work is kept, and the run can be resumed."""


class Unfit(ParetuneError):
    """These settings cannot train this model: its numbers overflow, or memory is too small for them."""


class WorkerDied(ParetuneError):
    """The process of a task was killed. What the task had saved is there, and it may be run again."""


@dataclass(frozen=True)
class Part:
    """The one process that a machine runs of a task whose processes are dealt over several machines.

    rank: of `size`; 0 leads. host, port: of the leader's store, through which they find each other. The
    leader has port 0: it opens the store, and reports {"meeting": port} once the others may come.
    """

    rank: int
    size: int
    host: str
    port: int = 0


class DealtDevices(tuple[str, ...]):
    """The devices of such a task, one for each process: "" is a device of another machine."""

    part: Part

    def __new__(cls, part: Part, device: str) -> DealtDevices:
        """device: of this machine's process, by torch's name."""
        devices = super().__new__(cls, (device if r == part.rank else "" for r in range(part.size)))
        devices.part = part
        return devices


class Dialogue(str):
    """A prompt of several turns. People and rewards read it as a text; models read its `turns`.

    turns: {"role": .., "content": ..}, the form that chat templates take.
    """

    turns: tuple[Mapping[str, str], ...]

    def __new__(cls, turns: Sequence[Mapping[str, str]]) -> Dialogue:
        """The text has one paragraph per turn."""
        dialogue = super().__new__(cls, "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in turns))
        dialogue.turns = tuple(turns)
        return dialogue

    def __reduce__(self) -> tuple[type[Dialogue], tuple[tuple[Mapping[str, str], ...]]]:
        """Pickling keeps the turns, from which another process rebuilds the dialogue."""
        return Dialogue, (self.turns,)


class Pictured(str):
    """A prompt with an input picture, for models that edit or animate one. People read it as its text.

    image: the absolute path of the picture.
    """

    image: str

    def __new__(cls, text: str, image: str) -> Pictured:
        """The text, and the path of its picture."""
        prompt = super().__new__(cls, text)
        prompt.image = image
        return prompt

    def __reduce__(self) -> tuple[type[Pictured], tuple[str, str]]:
        """Pickling keeps the path of the picture."""
        return Pictured, (str(self), self.image)


def turns_of(prompt: str) -> list[dict[str, str]]:
    """A prompt as chat templates take it: the turns of a dialogue, or a single turn of the user."""
    return [dict(turn) for turn in prompt.turns] if isinstance(prompt, Dialogue) else [
        {"role": "user", "content": prompt}
    ]


def as_recorded(prompt: str) -> str | list[dict[str, str]]:
    """A prompt as a record holds it, from which it is read again: a text, or the turns of a dialogue."""
    return turns_of(prompt) if isinstance(prompt, Dialogue) else str(prompt)


@dataclass(frozen=True)
class Prompt:
    """One prompt. metadata: the record that it came from (such as GenEval's JSON), which rewards read.

    If the record names an input picture, text is a `Pictured`, and metadata["image"] is the picture's
    absolute path.
    """

    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])


# A batch of what a model generates. Only policies and rewards look inside; other code counts, slices and
# passes it on.
Samples: TypeAlias = torch.Tensor | list[str]


def take(samples: Samples, index: torch.Tensor) -> Samples:
    """The samples at `index`, [n]."""
    if isinstance(samples, torch.Tensor):
        return samples[index]
    return [samples[int(i)] for i in index]


class Reward(Protocol):
    """Any object with these members is a reward. Scores are raw values, without weights.

    name: unique in a run. range: the least and the greatest value (may be infinite).
    higher_is_better: the direction; False for a reward that is a cost.

    Two more methods are optional. `applies(prompt) -> bool` says whether the reward can score a prompt, also
    one of another reward's prompt set. `check(prompts)` raises ParetuneError (or any error, whose message is
    shown) for prompts of this reward's set that it cannot score. `rewards.checks` calls both before training.
    """

    @property
    def name(self) -> str:
        """The reward's name in the run."""
        ...

    @property
    def range(self) -> tuple[float, float]:
        """The least and the greatest value."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """False for a cost."""
        ...

    # Any, because a reward takes one kind of samples (such as pictures) and annotates that type.
    def score(self, samples: Any, prompts: Sequence[Prompt]) -> torch.Tensor:
        """Score B samples: pictures or clips in [0, 1], or texts. One prompt per sample. Returns float32 [B].

        Both arguments are copies, which the reward may change.
        """
        ...
