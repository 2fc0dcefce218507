"""Scores of the samples of an epoch, which may come in parts while more are drawn.

The samples of a reward are scored in the same batches whether they come at once or in parts: a network may
round otherwise in a batch of another size. Shapes: R rewards, P prompts drawn in an epoch, G samples of each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ..rewards.base import score_samples
from ..types import Prompt, Reward, Samples, take

BATCH = 64  # samples that a reward scores in one call


@dataclass(frozen=True)
class Scores:
    """Scores of P groups of samples.

    raw: [R, P, G], with the signs that the rewards give, and 0 where a reward does not apply. applies: bool
    [R, P]. told: bool [R, P], the scores of which the metrics tell the mean: without those of rewards that an
    expert only leans on. weights: [P, R], drawn for each group; None: those of the prompt sets.
    """

    raw: torch.Tensor
    applies: torch.Tensor
    told: torch.Tensor
    weights: torch.Tensor | None = None

    def mean(self) -> float:
        """The mean of all scores that are reported."""
        return float(self.raw[self.told].mean())

    def spread(self) -> float:
        """The mean of the standard deviations within the groups."""
        return float(self.raw[self.told].std(dim=1).mean())


@dataclass(frozen=True)
class Chosen:
    """What a reward scores: the samples with the numbers `rows`, in order, and the prompt of each."""

    reward: Reward
    rows: torch.Tensor
    prompts: Sequence[Prompt]


class Scoring:
    """Scores P groups of G samples: `add` takes the samples in order, `scores` returns the scores of all.

    chosen: for each reward. shape: (P, G). applies, told: see `Scores`. timeout: seconds that one call of a
    reward may take. seconds: what scoring has taken so far. samples: those that have come. look: called with
    the scores of all.
    """

    def __init__(
        self, chosen: Sequence[Chosen], shape: tuple[int, int], applies: torch.Tensor, told: torch.Tensor,
        timeout: float,
    ) -> None:  # fmt: skip
        self.chosen, self.shape, self.applies, self.told = chosen, shape, applies, told
        self.look: Look = lambda scoring, scores: None
        self.timeout, self.seconds = timeout, 0.0
        self._total, self._came = shape[0] * shape[1], 0
        self.samples: Samples = []
        self._values: list[list[torch.Tensor]] = [[] for _ in chosen]
        self._done = [0] * len(chosen)

    def add(self, samples: Samples) -> None:
        """Take the next samples, and score what makes whole batches; with the last ones, score all.

        Samples beyond the last are not scored: a process may have drawn them to be as busy as others.
        """
        samples = samples[: self._total - self._came]
        if not len(samples):
            return
        start = time.perf_counter()
        self._keep(samples)
        for i, own in enumerate(self.chosen):
            ready = int((own.rows < self._came).sum())
            if self._came < self._total:
                # A reward that compares the samples of a prompt waits for all of them.
                whole = getattr(own.reward, "groups", False) is True
                ready -= ready - self._done[i] if whole else (ready - self._done[i]) % BATCH
            if ready > self._done[i] or self._came == self._total:
                part = slice(self._done[i], ready)
                wanted = take(self.samples, own.rows[part])
                scored = score_samples(own.reward, wanted, own.prompts[part], BATCH, self.timeout)
                self._values[i].append(scored)
                self._done[i] = ready
        self.seconds += time.perf_counter() - start

    def scores(self) -> Scores:
        """The scores, after all samples have come."""
        if self._came != self._total:
            raise ValueError(f"{self._came} of {self._total} samples have come")
        raw = torch.zeros(len(self.chosen), self._total)
        for values, own, scored in zip(raw, self.chosen, self._values, strict=True):
            values[own.rows] = torch.cat([torch.zeros(0), *scored])
        scores = Scores(raw.view(len(self.chosen), *self.shape), self.applies, self.told)
        self.look(self, scores)
        return scores

    def _keep(self, samples: Samples) -> None:
        """Put the samples to those that came before. The layout in memory stays, by which rewards round."""
        begin, self._came = self._came, self._came + len(samples)
        if len(samples) == self._total:
            self.samples = samples
        elif isinstance(samples, torch.Tensor):
            if not isinstance(self.samples, torch.Tensor):
                last = samples.dim() == 4 and not samples.is_contiguous()
                order = torch.channels_last if last else torch.contiguous_format
                size = (self._total, *samples.shape[1:])
                self.samples = torch.empty(size, dtype=samples.dtype, memory_format=order)
            self.samples[begin : self._came] = samples
        elif not isinstance(self.samples, torch.Tensor):
            self.samples = [*self.samples, *samples]


Look = Callable[[Scoring, Scores], None]
