"""The scorers of a prompt set, and the scales of their scores.

The held-out set of every reward is scored by that reward and, if the recipe names one, by a judge. When a
model is measured, the range and the direction of each scorer are recorded beside the rows, so that a summary
can read them without loading a network.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from ..config import EvaluateConfig, RewardConfig, RunConfig
from ..files import sha256
from ..records.manifest import MANIFEST, read_manifest
from ..records.read import checked
from ..rewards.base import load_reward, reward_of
from ..rewards.importing import files_of
from ..rewards.table import identity
from ..types import Reward

Kind = Literal["reward", "judge", "untargeted"]


@dataclass(frozen=True)
class Scale:
    """How to read the scores called `name` on a prompt set. low, high: None where there is no bound."""

    prompt_set: str
    kind: Kind
    name: str
    low: float | None
    high: float | None
    higher_is_better: bool

    @property
    def range(self) -> tuple[float, float]:
        """The least and the greatest value, infinite where there is no bound."""
        return (-math.inf if self.low is None else self.low, math.inf if self.high is None else self.high)


_SCALES = TypeAdapter(list[Scale])


def scorers_of(config: RunConfig, prompt_set: str) -> Iterator[tuple[Kind, Reward]]:
    """Load the scorers of one prompt set: its reward, its judge, and the untargeted rewards."""
    reward_config = config.rewards[prompt_set]
    yield "reward", reward_of(reward_config, prompt_set)
    if reward_config.judge and config.evaluate.judges:
        yield "judge", load_reward(reward_config.judge)
    for spec in config.evaluate.untargeted:
        yield "untargeted", load_reward(spec)


def named(spec: str) -> str | list[str]:
    """What identifies a reward in digests: its name, and for one in a file the SHA-256 of its code."""
    place = spec.rpartition(":")[0]
    if place.endswith(".py") and Path(place).is_file():
        return [spec, *(sha256(file) for file in files_of(Path(place)))]
    return identity(spec)


def besides(own: RewardConfig) -> list[Any]:
    """What digests know of a reward beside its name and options: its head, nothing where it has none."""
    return [] if own.head is None else [{"head": own.head}]


def evaluate_inputs(settings: EvaluateConfig) -> dict[str, Any]:
    """What digests know the measurement by: its settings, the untargeted rewards as in `named`."""
    names = [identity(spec) for spec in settings.untargeted]
    return {**settings.model_dump(mode="json"), "untargeted": names}


def scale_of(prompt_set: str, kind: Kind, scorer: Reward) -> Scale:
    """The scale of a scorer. JSON has no infinity, so a missing bound is None."""
    low, high = (value if math.isfinite(value) else None for value in scorer.range)
    return Scale(prompt_set, kind, scorer.name, low, high, scorer.higher_is_better)


def recorded(scales: list[Scale]) -> dict[str, Any]:
    """The entry that the manifest of a measured model has for its scales."""
    return {"scales": [asdict(scale) for scale in scales]}


def read_scales(config: RunConfig, measured: Path) -> list[Scale]:
    """The scales of a measured model, read from its manifest without loading a reward.

    Earlier versions recorded no scales. For a folder of such a version the rewards are loaded and asked.
    """
    entries = read_manifest(measured).get("scales")
    if entries is not None:
        return checked(_SCALES, entries, measured / MANIFEST, f"delete {measured} and resume")
    return [
        scale_of(name, kind, scorer)
        for name in config.rewards
        for kind, scorer in scorers_of(config, name)
    ]
