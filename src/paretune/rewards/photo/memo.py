"""Tensors that are remembered by what they were computed from, so that several rewards compute them once."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch


class Memo:
    """Remembers results, the most recent first; the oldest go where they take more than `most` bytes."""

    def __init__(self, most: int) -> None:
        self._most, self._bytes = most, 0
        self._known: OrderedDict[Hashable, torch.Tensor] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        """What `make` returned for this key; nobody may write into it. Called again once it is forgotten."""
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        made = make()
        if made.nbytes <= self._most:
            self._known[key] = made
            self._bytes += made.nbytes
            while self._bytes > self._most:
                self._bytes -= self._known.popitem(last=False)[1].nbytes
        return made


def digest(tensor: torch.Tensor) -> bytes:
    """16 bytes that tell tensors apart, by shape, type and every number."""
    whole = tensor.detach().cpu().contiguous()
    found = hashlib.blake2b(str((tuple(whole.shape), whole.dtype)).encode(), digest_size=16)
    found.update(whole.view(torch.uint8).numpy().data)
    return found.digest()
