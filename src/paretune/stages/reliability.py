"""How reliable a scorer is, and what a sample costs: samples scored once more, and changed.

`paretune check-rewards` asks this of the base before a run; a run asks it of few of the base's evaluated
samples, and keeps the answer beside their scores. Nothing that a run measures or trains depends on it.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..files import write_json
from ..ops.reward_card import reliability
from ..rewards.base import score_samples
from ..rewards.errors import RewardError
from ..samples.files import as_bytes
from ..types import Prompt, Reward, Samples, take

FILE = "reliability.json"  # beside the rows of the base
QUALITY = 75  # of the JPEG
FEW = 16  # samples of each scorer that a run scores again, at most
Steady = dict[str, dict[str, float | None]]  # variant -> `ops.reward_card.reliability`


@dataclass(frozen=True)
class Scoring:
    """What a scorer said of N samples. groups: [N], the number of each sample's prompt. seconds: of a sample.

    timeout: seconds for one batch.
    """

    samples: Samples
    prompts: Sequence[Prompt]
    values: np.ndarray
    groups: np.ndarray
    seconds: float | None
    timeout: float | None


def scored(
    scorer: Reward, samples: Samples, prompts: Sequence[Prompt], groups: np.ndarray, timeout: float | None
) -> Scoring:
    """Score N samples, and look at the clock. Raises RewardError as `score_samples` does."""
    start = time.perf_counter()
    values = score_samples(scorer, samples, prompts, timeout=timeout)
    seconds = (time.perf_counter() - start) / len(prompts) if prompts else None
    return Scoring(samples, prompts, values.numpy().astype(np.float64), groups, seconds, timeout)


def scored_again(scorer: Reward, first: Scoring, most: int) -> tuple[Steady, float | None]:
    """How at most `most` samples are scored again and changed; seconds a sample, of the fastest pass."""
    steady, seconds = Steady(), first.seconds
    rows = evenly(first.groups, most, getattr(scorer, "groups", False) is True)
    if not rows or seconds is None:
        return steady, seconds
    prompts = [first.prompts[i] for i in rows]
    for name, change in variants(take(first.samples, torch.tensor(rows))):
        again = scored(scorer, change, prompts, first.groups[rows], first.timeout)
        seconds = min(seconds, again.seconds or seconds)
        steady[name] = reliability(first.values[rows], again.values)
    return steady, seconds


def evenly(groups: np.ndarray, most: int, whole: bool = False) -> list[int]:
    """The numbers of at most `most` of N samples, evenly over the prompts.

    whole: all samples of a prompt or none, for a scorer that compares them; at least one prompt.
    """
    step = -(-len(groups) // most)
    if not whole or step <= 1:
        return list(range(len(groups)))[:: max(1, step)]
    return np.flatnonzero(np.isin(groups, np.unique(groups)[::step])).tolist()


def variants(samples: Samples) -> Iterator[tuple[str, Samples]]:
    """The samples once more, and changed in ways that a reward meets in the world.

    Pictures and clips: after JPEG, and mirrored. Answers: with a blank behind them.
    """
    yield "again", samples
    if isinstance(samples, torch.Tensor):
        yield "jpeg", compressed(samples)
        yield "flip", samples.flip(-1)
    else:
        yield "space", [f"{text} " for text in samples]


def compressed(samples: torch.Tensor) -> torch.Tensor:
    """Each picture, or each frame of clips, after JPEG. [.., 3, H, W] in [0, 1] -> the same."""
    frames = as_bytes(samples.flatten(0, -4))
    made = []
    for frame in frames.movedim(1, -1).contiguous().numpy():
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "JPEG", quality=QUALITY)
        made.append(torch.from_numpy(np.array(Image.open(file).convert("RGB"))))
    return torch.stack(made).movedim(-1, 1).float().div(255).view(samples.shape)


class Reliability:
    """What a run notes about its scorers while it measures the base."""

    def __init__(self, report: Callable[[dict[str, Any]], None]) -> None:
        """report: called with a notice where a scorer fails on a changed sample, which stops nothing."""
        self._report = report
        self._entries: dict[tuple[str, str, str], dict[str, Any]] = {}

    def note(self, prompt_set: str, kind: str, scorer: Reward, first: Scoring) -> None:
        """Ask a scorer again, an untargeted one on its first prompt set.

        What is asked over the network (`elsewhere`) may cost money, and is not asked more than a run needs.
        """
        key = ("" if kind == "untargeted" else prompt_set, kind, scorer.name)
        if key in self._entries or not len(first.values):
            return
        steady, seconds = Steady(), first.seconds
        if not getattr(scorer, "elsewhere", False):
            try:
                with torch.random.fork_rng([]):  # what is drawn after it is what it would have been
                    steady, seconds = scored_again(scorer, first, FEW)
            except RewardError as error:
                self._report({"notice": f"no reliability of {scorer.name} in the reward card: {error}"})
        self._entries[key] = {
            "prompt_set": prompt_set, "kind": kind, "reward": scorer.name, "seconds": seconds,
            "reliability": steady,
        }  # fmt: skip

    def write(self, folder: Path) -> None:
        """Write `FILE`."""
        write_json(folder / FILE, {"scorers": list(self._entries.values())})
