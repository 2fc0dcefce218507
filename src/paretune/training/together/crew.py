"""The processes that train one expert together, and what they tell each other (torch.distributed).

Every process holds the same adapter and draws the same random numbers, for all samples of an epoch, so it
knows every prompt, every noise and every order. Only the work is dealt: each process samples, scores and
differentiates some of the groups. Trajectories and scores are put together again, and gradients are summed.
So the number of processes changes a result by rounding alone. Shapes: P groups, dealt to n processes.
"""
# pyright: reportPrivateImportUsage=false
# torch documents TCPStore and does not list it as exported.

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

BUCKET = 2**24  # numbers of a gradient that are summed in one message, about: 64 MB of float32
PATIENCE = timedelta(hours=6)  # for a process whose reward takes long; one that has died is noticed at once


@dataclass(frozen=True)
class Place:
    """Process `rank` of `size`. host, port: of the store through which they find each other."""

    rank: int
    size: int
    host: str
    port: int


@dataclass(frozen=True)
class Dealt:
    """Groups for one process. own: the numbers of its groups. filler: how many it repeats to be as busy.

    The filler's results are dropped. Processes that share a model in pieces (`shard: full`) call it together,
    so each must call it as often as the others.
    """

    own: torch.Tensor
    filler: torch.Tensor

    @property
    def all(self) -> torch.Tensor:
        """The groups of the process, then its filler."""
        return torch.cat([self.own, self.filler])


class Crew:
    """One process's view of the group. With size 1 nothing is exchanged; torch.distributed is not used."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def leader(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def deal(self, groups: int) -> Dealt:
        """Whole groups for this process. They are consecutive, so the parts of all ranks are in order."""
        shares = torch.arange(groups).tensor_split(self.size)
        own = shares[self.rank]
        return Dealt(own, torch.zeros(len(shares[0]) - len(own), dtype=torch.long))

    def gather(self, own: torch.Tensor, each: int, groups: int) -> torch.Tensor:
        """The rows of all groups, from those of every process's own. [own * each, ..] -> [groups * each, ..].

        each: rows of a group. groups: P, which were dealt by `deal`.
        """
        if self.size == 1:
            return own
        counts = [len(share) * each for share in torch.arange(groups).tensor_split(self.size)]
        padded = own.new_zeros((counts[0], *own.shape[1:]))
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Replace every gradient by its sum over the processes."""
        if self.size == 1:
            return
        bucket, size = list[torch.Tensor](), 0
        gradients = [p.grad for p in parameters if p.grad is not None]
        for number, gradient in enumerate(gradients):
            bucket.append(gradient)
            size += gradient.numel()
            if size >= BUCKET or number == len(gradients) - 1:
                _sum(bucket)
                bucket, size = [], 0

    def sums(self, facts: Mapping[str, float]) -> dict[str, float]:
        """Numbers by name, summed over the processes."""
        if self.size == 1:
            return dict(facts)
        told: list[Any] = [None] * self.size
        dist.all_gather_object(told, dict(facts))
        names = dict.fromkeys(name for one in told for name in one)
        return {name: sum(one.get(name, 0.0) for one in told) for name in names}

    def most(self, number: int) -> int:
        """The greatest of a number that each process says."""
        if self.size == 1:
            return number
        told = torch.tensor([number])
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return int(told)

    def wait(self) -> None:
        """Return when every process has come here."""
        self.most(0)

    def agreed(self, flag: bool) -> bool:
        """What the leader says, so that all stop at the same checkpoint."""
        if self.size == 1:
            return flag
        told = [flag]
        dist.broadcast_object_list(told, src=0)
        return told[0]


ALONE = Crew()


@contextmanager
def joined(place: Place, device: str) -> Iterator[Crew]:
    """Join the group within a block: by NCCL on GPUs, by gloo on CPUs.

    Args:
        place: of this process in the group.
        device: its own, by torch's name.
    """
    backend = "gloo"
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    store = dist.TCPStore(place.host, place.port, is_master=False, timeout=PATIENCE)
    dist.init_process_group(
        backend, store=store, rank=place.rank, world_size=place.size, timeout=PATIENCE
    )
    try:
        yield Crew(place.rank, place.size)
    finally:
        dist.destroy_process_group()


def _sum(bucket: Sequence[torch.Tensor]) -> None:
    """Sum some gradients over the processes, in one message, in place."""
    flat = torch.cat([gradient.flatten() for gradient in bucket])
    dist.all_reduce(flat)
    for gradient, summed in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
        gradient.copy_(summed.view_as(gradient))
