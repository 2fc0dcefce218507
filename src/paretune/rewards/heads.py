"""Rewards that give several values in one pass: `rewards.NAME.head` says which of them is meant.

Such a reward returns {head: B values} instead of B values. It may declare `heads`, a sequence of names or
{name: (least, greatest)}, so that a wrong name is told before anything is trained. Rewards of a recipe that
name the same scorer with the same options share it: it is loaded once, and scores a sample once. One of
paretune's own declares `usual_head` too, which is meant where no head is named.
"""

from __future__ import annotations

import hashlib
import json
import math
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from paretune.types import ParetuneError, Prompt, Reward, Samples, take

from .errors import RewardError, failure
from .scores import checked_scores

KEPT = 16_384  # scored samples that are remembered at most, a few numbers each
Values = dict[str, torch.Tensor]  # head -> float32 [B]
Ask = Callable[[Samples, Sequence[Prompt], float], Values]


@dataclass
class _Entry:
    """The values of a sample, and the heads whose values are there."""

    values: dict[str, float]
    told: set[str] = field(default_factory=set)


class Scorer:
    """A reward of several heads, with what it scored lately.

    A head that asks twice about a sample has it scored anew: what one call remembers is for the other heads
    of that call, so that a run that was stopped and resumed gives the same scores.
    """

    def __init__(self, reward: Any, ask: Ask) -> None:
        self.reward, self.ask = reward, ask
        self.declared = declared_heads(reward)
        self._known: dict[bytes, _Entry] = {}

    def scored(
        self, head: str, samples: Samples, prompts: Sequence[Prompt], seconds: float
    ) -> torch.Tensor:
        """The values of one head, float32 [B]. seconds: that scoring may take. Raises RewardError."""
        keys = [_key(samples[i], prompt) for i, prompt in enumerate(prompts)]
        new = [i for i, key in enumerate(keys) if key not in self._known or head in self._known[key].told]
        if new:
            chosen = take(samples, torch.tensor(new))
            found = self.ask(chosen, [prompts[i] for i in new], seconds)
            for row, i in enumerate(new):
                self._known[keys[i]] = _Entry({name: float(v[row]) for name, v in found.items()})
        values = [self._value(head, key, prompt) for key, prompt in zip(keys, prompts, strict=True)]
        for key in keys:
            self._known[key].told.add(head)
        for key in list(self._known)[: max(0, len(self._known) - KEPT)]:
            del self._known[key]
        return torch.tensor(values, dtype=torch.float32)

    def _value(self, head: str, key: bytes, prompt: Prompt) -> float:
        values = self._known[key].values
        if head not in values:
            raise RewardError(failure(self.reward, unknown_head(head, values), prompt))
        return values[head]


class HeadReward:
    """One head of a scorer, a reward like every other. It applies to what its scorer applies to."""

    def __init__(self, scorer: Scorer, head: str, name: str) -> None:
        self.name, self._scorer, self._head = name, scorer, head
        declared = scorer.declared
        if declared is not None and head not in declared:
            raise ParetuneError(f"rewards.{name}.head: {scorer.reward.name} {unknown_head(head, declared)}")
        bounds = (declared or {}).get(head)
        self.range: tuple[float, float] = scorer.reward.range if bounds is None else bounds
        self.higher_is_better: bool = scorer.reward.higher_is_better

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> torch.Tensor:
        """See `types.Reward`."""
        return self.scored(samples, prompts, math.inf)

    def scored(self, samples: Samples, prompts: Sequence[Prompt], seconds: float) -> torch.Tensor:
        """Checked scores, float32 [B], within so many seconds. Raises RewardError."""
        return self._scorer.scored(self._head, samples, prompts, seconds)

    def __getattr__(self, name: str) -> Any:
        if name not in {"applies", "check"}:
            raise AttributeError(name)
        return getattr(self._scorer.reward, name)


_scorers: weakref.WeakValueDictionary[str, Scorer] = weakref.WeakValueDictionary()
_kept: deque[Scorer] = deque(maxlen=4)  # that outlive their rewards: a model is loaded once in a process


def shared_scorer(
    spec: str, options: Mapping[str, Any], load: Callable[[], Scorer], keep: bool = False
) -> Scorer:
    """The scorer of a spec and its options that somebody has already, or a new one.

    keep: whether a new one outlives the rewards that share it, until a few others came after it.
    """
    key = json.dumps([spec, options], sort_keys=True, default=str)
    scorer = _scorers.get(key)
    if scorer is None:
        _scorers[key] = scorer = load()
        if keep:
            _kept.append(scorer)
    return scorer


def declared_heads(reward: Any) -> dict[str, tuple[float, float] | None] | None:
    """What a reward declares: head -> its range, or None where it gives none; None where it declares nothing.

    Raises ParetuneError for heads that are no names, or ranges that are no ranges.
    """
    heads = getattr(reward, "heads", None)
    if heads is None:
        return None
    wrong = ParetuneError(
        f"reward {getattr(reward, 'name', reward)!r}: its heads must be names, or {{name: (least, greatest)}}"
    )
    try:
        pairs = list(heads.items()) if isinstance(heads, Mapping) else [(head, None) for head in heads]
        found = {head: None if r is None else (float(r[0]), float(r[1])) for head, r in pairs}
    except Exception as error:  # a user's attribute may be anything
        raise wrong from error
    ranges = [bounds for bounds in found.values() if bounds is not None]
    if isinstance(heads, str) or not found or not all(isinstance(head, str) and head for head in found):
        raise wrong
    if not all(low < high for low, high in ranges):
        raise wrong
    return found


def unknown_head(head: str, known: Mapping[str, Any]) -> str:
    """The words about a head that does not exist."""
    return f"has no head {head!r}; its heads: {', '.join(map(str, known))}"


def checked_heads(reward: Reward, value: Any, prompts: Sequence[Prompt]) -> Values:
    """What a reward of heads returned, each head's values checked as `checked_scores` does."""
    if not isinstance(value, Mapping) or not value or not all(isinstance(name, str) for name in value):
        what = f"returned a {type(value).__name__}, not the values of each head by its name"
        raise RewardError(failure(reward, what, prompts[0]))
    return {name: checked_scores(reward, values, prompts) for name, values in value.items()}


def _key(sample: Any, prompt: Prompt) -> bytes:
    """What a sample is remembered by: its bytes, its prompt and the prompt's record."""
    record = json.dumps([prompt.text, dict(prompt.metadata)], sort_keys=True, default=str)
    found = hashlib.blake2b(record.encode("utf-8", "surrogatepass"), digest_size=16)
    if isinstance(sample, torch.Tensor):
        whole = sample.detach().cpu().contiguous()
        found.update(str((tuple(whole.shape), whole.dtype)).encode())
        found.update(whole.view(torch.uint8).numpy().tobytes())
    else:
        found.update(b"\0" + str(sample).encode("utf-8", "surrogatepass"))
    return found.digest()
