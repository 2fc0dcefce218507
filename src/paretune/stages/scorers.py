"""Who scores a prompt set, and what a table must know of its scores without loading a network.

Every reward's held-out set is scored by that reward and, where the recipe names one, by a judge. Measuring a
model records the range and the direction of each with the rows; summaries read them from there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from ..config import EvaluateConfig, RunConfig
from ..files import sha256
from ..records.manifest import MANIFEST, read_manifest
from ..records.read import checked
from ..rewards.base import load_reward
from ..rewards.importing import files_of
from ..rewards.table import identity
from ..types import Reward

Kind = Literal["reward", "judge", "untargeted"]


@dataclass(frozen=True)
class Scale:
    """How the scores called `name` on a prompt set are read. low, high: None where there is no bound."""

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
    """Load who scores one prompt set: its reward, its judge, and those that nothing trains on."""
    own = config.rewards[prompt_set]
    yield "reward", load_reward(own.reward, name=prompt_set, **own.options)
    if own.judge and config.evaluate.judges:
        yield "judge", load_reward(own.judge)
    for spec in config.evaluate.untargeted:
        yield "untargeted", load_reward(spec)


def named(spec: str) -> str | list[str]:
    """What digests know a reward by: its name, or for one of a file its spec and the SHA-256 of its code."""
    place = spec.rpartition(":")[0]
    if place.endswith(".py") and Path(place).is_file():
        return [spec, *(sha256(file) for file in files_of(Path(place)))]
    return identity(spec)


def evaluate_inputs(settings: EvaluateConfig) -> dict[str, Any]:
    """What digests know the measurement by: its settings, the untargeted rewards as in `named`."""
    names = [identity(spec) for spec in settings.untargeted]
    return {**settings.model_dump(mode="json"), "untargeted": names}


def scale_of(prompt_set: str, kind: Kind, scorer: Reward) -> Scale:
    """What to keep of a scorer. JSON has no infinity: a missing bound is None."""
    low, high = (value if math.isfinite(value) else None for value in scorer.range)
    return Scale(prompt_set, kind, scorer.name, low, high, scorer.higher_is_better)


def recorded(scales: list[Scale]) -> dict[str, Any]:
    """The manifest's entry of a measured model."""
    return {"scales": [asdict(scale) for scale in scales]}


def read_scales(config: RunConfig, measured: Path) -> list[Scale]:
    """The scales of a measured model, from its manifest; no reward is loaded.

    A folder of a version that recorded none is still read: then the rewards are loaded and asked.
    """
    entries = read_manifest(measured).get("scales")
    if entries is not None:
        return checked(_SCALES, entries, measured / MANIFEST, f"delete {measured} and resume")
    return [
        scale_of(name, kind, scorer)
        for name in config.rewards
        for kind, scorer in scorers_of(config, name)
    ]
