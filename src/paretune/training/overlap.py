"""Draw the next samples while the last ones are scored: `executor.overlap`.

Samples are drawn in another thread, and scored in this one, where a reward's deadline and Ctrl-C work as
always. They are drawn, decoded and scored in the same batches as without overlap, so the results are the same
bits. A part that is scored is a multiple of 64 samples: the batch of a reward, and a multiple of the batches
that autoencoders decode.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

import torch

from ..models.flow import Trajectories, joined
from .scoring import BATCH, Scoring

T = TypeVar("T")
Decode = Callable[[torch.Tensor], torch.Tensor]


def draw_and_score(parts: Iterator[Trajectories], decode: Decode, scoring: Scoring) -> Trajectories:
    """Draw all parts, and give their decoded samples to `scoring` meanwhile. Returns all trajectories.

    decode: latents -> samples. At an error of either side the other ends after the part in hand.
    """
    drawn: list[Trajectories] = []
    with closing(_ahead(_decoded(parts, decode, drawn))) as samples:
        for some in samples:
            scoring.add(some)
    return joined(drawn)


def _decoded(
    parts: Iterator[Trajectories], decode: Decode, drawn: list[Trajectories]
) -> Iterator[torch.Tensor]:
    """The samples in multiples of 64, then the rest. drawn: where the trajectories are put."""
    rest = torch.zeros(0)
    for part in parts:
        drawn.append(part)
        latents = torch.cat([rest, part.clean]) if len(rest) else part.clean
        whole = len(latents) // BATCH * BATCH
        if whole:
            yield decode(latents[:whole])
        rest = latents[whole:]
    if len(rest):
        yield decode(rest)


def _ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """The items, each made in another thread while the caller works on the one before."""
    end = object()
    threads = torch.get_num_threads()  # arithmetic on the CPU depends on it, and each thread has its own
    with ThreadPoolExecutor(1, "drawing", torch.set_num_threads, (threads,)) as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item  # type: ignore[misc]
