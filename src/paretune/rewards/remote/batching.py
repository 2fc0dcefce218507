"""Score what several callers ask for together: a network takes 64 samples almost as fast as one."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch

from paretune.types import ParetuneError, Prompt, Reward, Samples

from ..base import score_samples
from ..errors import RewardError


class Busy(Exception):
    """More samples wait than may; the caller asks again later."""


@dataclass
class Counts:
    """What a batcher has done. samples: scored. batches: calls of the reward. seconds: in those calls."""

    samples: int = 0
    batches: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class _Item:
    samples: Samples
    prompts: Sequence[Prompt]
    scores: Future[list[float]] = field(default_factory=Future)

    @property
    def kind(self) -> Any:
        """Items of one kind can be scored together."""
        pixels = self.samples
        return (pixels.shape[1:], pixels.dtype) if isinstance(pixels, torch.Tensor) else "texts"


class Batcher:
    """A queue of questions before the workers of one reward.

    workers: rewards that score at the same time, each in a thread here. most: samples that are scored in one
    call; 0: every question alone. seconds: that a call may take. waiting: samples that may wait.
    """

    def __init__(self, workers: Sequence[Reward], most: int, seconds: float, waiting: int = 8192) -> None:
        self.counts, self.waiting = Counts(), 0
        self._most, self._seconds, self._limit = most, seconds, waiting
        self._items: deque[_Item] = deque()
        self._change = threading.Condition()
        self._closed = False
        self._threads = [threading.Thread(target=self._work, args=(w,), daemon=True) for w in workers]
        for thread in self._threads:
            thread.start()

    def submit(self, samples: Samples, prompts: Sequence[Prompt]) -> Future[list[float]]:
        """Ask for scores. Raises Busy; the future raises RewardError where the reward fails."""
        item = _Item(samples, prompts)
        with self._change:
            if self._closed or (self.waiting and self.waiting + len(prompts) > self._limit):
                raise Busy
            self._items.append(item)
            self.waiting += len(prompts)
            self._change.notify()
        return item.scores

    def close(self) -> None:
        """End the threads after what they are doing; what waits is refused."""
        with self._change:
            self._closed = True
            for item in self._items:
                item.scores.set_exception(RewardError("the server stops"))
            self._items.clear()
            self._change.notify_all()

    def _work(self, reward: Reward) -> None:
        while items := self._next():
            self._score(reward, items)

    def _next(self) -> list[_Item]:
        """The oldest question, and those behind it that are scored with it; [] at the end."""
        with self._change:
            while not self._items and not self._closed:
                self._change.wait()
            if self._closed:
                return []
            taken = [self._items.popleft()]
            size = len(taken[0].prompts)
            for item in list(self._items):
                if item.kind == taken[0].kind and size + len(item.prompts) <= self._most:
                    self._items.remove(item)
                    taken.append(item)
                    size += len(item.prompts)
            self.waiting -= size
            return taken

    def _score(self, reward: Reward, items: list[_Item]) -> None:
        """Score questions together, or each alone where that fails: one caller's fault is not the others'."""
        prompts = [prompt for item in items for prompt in item.prompts]
        samples = _joined([item.samples for item in items])
        start = time.perf_counter()
        try:
            size = max(1, len(prompts) if self._most == 0 else self._most)
            values = score_samples(reward, samples, prompts, size, self._seconds).tolist()
        except ParetuneError as error:
            if len(items) == 1:
                items[0].scores.set_exception(error)
                return
            for item in items:
                self._score(reward, [item])
            return
        except BaseException as error:  # the thread lives on, and the caller gets the error
            for item in items:
                item.scores.set_exception(error)
            return
        finally:
            with self._change:
                self.counts.seconds += time.perf_counter() - start
        with self._change:
            self.counts.samples += len(prompts)
            self.counts.batches += -(-len(prompts) // size)
        for item in items:
            own, values = values[: len(item.prompts)], values[len(item.prompts) :]
            item.scores.set_result(own)


def _joined(samples: Sequence[Samples]) -> Samples:
    """Samples of one kind as one batch."""
    tensors = [s for s in samples if isinstance(s, torch.Tensor)]
    if not tensors:
        return [text for own in samples for text in own if isinstance(text, str)]
    return torch.cat(tensors) if len(tensors) > 1 else tensors[0]
