"""Several rewards of one model: it is loaded once in a process, and a sample is scored once for all of them.

A class that derives from `Head` is one reward; its `head` says which value of the model it returns. The model
is any object with `heads` and `score_heads`.
"""

from __future__ import annotations

import functools
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from paretune.types import ParetuneError, Prompt, Samples

KEPT = 4096  # scored samples that are remembered, as a few numbers each


class Heads(Protocol):
    """A loaded model that gives several values for a sample."""

    heads: tuple[str, ...]

    def score_heads(self, samples: Samples, prompts: Sequence[Prompt]) -> torch.Tensor:
        """float32 [B, number of heads], in the order of `heads`."""
        ...


class Once:
    """A model of several heads that remembers what it has scored, by the sample's bytes and its prompt."""

    def __init__(self, model: Heads) -> None:
        self.model, self.heads = model, model.heads
        self._known: OrderedDict[bytes, torch.Tensor] = OrderedDict()

    def score(self, head: str, samples: Samples, prompts: Sequence[Prompt]) -> torch.Tensor:
        """One head's values, float32 [B] on the CPU. Only samples that were not seen before are scored."""
        keys = [_key(samples[i], prompt) for i, prompt in enumerate(prompts)]
        new = [i for i, key in enumerate(keys) if key not in self._known and keys.index(key) == i]
        values = dict(self._known)
        if new:
            chosen = samples[torch.tensor(new)] if isinstance(samples, torch.Tensor) else \
                [samples[i] for i in new]  # fmt: skip
            found = self.model.score_heads(chosen, [prompts[i] for i in new]).float().cpu()
            values.update(zip((keys[i] for i in new), found, strict=True))
        column = self.heads.index(head)
        for key in keys:
            self._known[key] = values[key]
            self._known.move_to_end(key)
        while len(self._known) > KEPT:
            self._known.popitem(last=False)
        return torch.stack([values[key][column] for key in keys])


@functools.lru_cache(maxsize=4)
def shared(make: Callable[..., Heads], *options: Any) -> Once:
    """The model that `make(*options)` loads, one for all rewards of this process that ask for the same."""
    return Once(make(*options))


def known_head(reward: str, head: str, heads: Sequence[str]) -> str:
    """The head. Raises ParetuneError, which lists the names, for one that does not exist."""
    if head not in heads:
        raise ParetuneError(f"{reward} has no head {head!r}; its heads: {', '.join(heads)}")
    return head


def _key(sample: Any, prompt: Prompt) -> bytes:
    found = hashlib.blake2b(prompt.text.encode(), digest_size=16)
    if isinstance(sample, torch.Tensor):
        whole = sample.detach().cpu().contiguous()
        found.update(str((tuple(whole.shape), whole.dtype)).encode())
        found.update(whole.view(torch.uint8).numpy().data)
    else:
        found.update(b"\0" + str(sample).encode())
    return found.digest()
