"""A reward of a user's own as the rest of paretune sees it: the reward itself is in another process."""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from paretune.types import ParetuneError, Prompt, Samples

from .errors import LATE, RewardError, RewardTimeout
from .process import PATIENCE, Ended, Overdue, RewardProcess, Spec, loading_seconds, reward_process

_numbers = itertools.count()


class RewardApart:
    """A reward of "module:Name" or "file.py:Name", loaded and called in `process.RewardProcess`.

    It has the attributes that every reward has, and of the methods that a reward may have those that it has.
    process: the process that it is in, by default the one of this process.
    """

    def __init__(
        self, spec: str, name: str | None, options: dict[str, Any], process: RewardProcess | None = None
    ) -> None:
        self._process = reward_process if process is None else lambda: process
        self._spec = _numbered(spec, name, options)
        facts = _load(self._spec, "load", self._process())
        self.name: str = facts["name"]
        self.range: tuple[float, float] = (facts["range"][0], facts["range"][1])
        self.higher_is_better: bool = facts["higher_is_better"]
        if facts.get("heads") is not None:
            self.heads: dict[str, tuple[float, float] | None] = facts["heads"]
        for method in facts["methods"]:
            setattr(self, method, partial(self._call, method))
        weakref.finalize(self, self._process().drop, self._spec.number)

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> torch.Tensor:
        """float32 [B] within the default time; raises as `scored` does."""
        return self.scored(samples, prompts, PATIENCE.get())

    def scored(self, samples: Samples, prompts: Sequence[Prompt], seconds: float) -> torch.Tensor:
        """Checked scores, float32 [B]. Raises RewardError where it fails, ends its process or is late."""
        prompt = prompts[0] if prompts else None
        plain = samples.detach().cpu().contiguous() if isinstance(samples, torch.Tensor) else samples
        answer = self._ask("score", plain, list(prompts), prompt=prompt, seconds=seconds)
        return torch.tensor(answer, dtype=torch.float32)

    def scored_heads(
        self, samples: Samples, prompts: Sequence[Prompt], seconds: float
    ) -> dict[str, torch.Tensor]:
        """Of a reward of several heads: head -> float32 [B], checked. Raises as `scored` does."""
        prompt = prompts[0] if prompts else None
        plain = samples.detach().cpu().contiguous() if isinstance(samples, torch.Tensor) else samples
        answer = self._ask("score_heads", plain, list(prompts), prompt=prompt, seconds=seconds)
        return {head: torch.tensor(values, dtype=torch.float32) for head, values in answer.items()}

    def _call(self, method: str, *arguments: Any) -> Any:
        """One of the methods that a reward may have, `applies` for one."""
        prompt = arguments[0] if arguments and isinstance(arguments[0], Prompt) else None
        answer = self._answer("call", method, *arguments, prompt=prompt, seconds=PATIENCE.get())
        if "error" not in answer:
            return answer["value"]
        if method == "check":  # its reason, to which the prompt's place is added
            raise ParetuneError(answer["raised"])
        where = "" if prompt is None else f" (prompt {shown(prompt)!r})"
        raise RewardError(f"reward {self.name!r} raised {answer['raised']} in {method}{where}")

    def _ask(self, method: str, *arguments: Any, prompt: Prompt | None, seconds: float) -> Any:
        answer = self._answer(method, *arguments, prompt=prompt, seconds=seconds)
        if "error" in answer:
            raise RewardError(answer["error"]) from (ParetuneError() if answer["user"] else None)
        return answer["value"]

    def _answer(
        self, method: str, *arguments: Any, prompt: Prompt | None, seconds: float
    ) -> dict[str, Any]:
        where = "" if prompt is None else f" (prompt {shown(prompt)!r})"
        try:
            return self._process().ask(self._spec, method, *arguments, seconds=seconds)
        except Overdue:
            raise RewardTimeout(
                f"reward {self.name!r} did not answer within {seconds:g} s{where}; it was ended: {LATE}"
            ) from None
        except Ended as how:
            raise RewardError(f"reward {self.name!r} ended its process, {how}{where}") from None


def find_apart(spec: str) -> bool:
    """Import what `spec` names, in the other process. Returns whether it has a method `check`.

    Raises ParetuneError where that fails.
    """
    return bool(_load(_numbered(spec, None, {}), "find", reward_process()))


def shown(prompt: Prompt) -> str:
    """A prompt as a message quotes it."""
    return prompt.text if len(prompt.text) <= 80 else prompt.text[:77] + "..."


def _numbered(spec: str, name: str | None, options: dict[str, Any]) -> Spec:
    return Spec(next(_numbers), spec, name, options, os.getcwd())


def _load(spec: Spec, method: str, process: RewardProcess) -> Any:
    seconds = loading_seconds()
    try:
        answer = process.ask(spec, method, seconds=seconds)
    except Overdue:
        raise RewardTimeout(
            f"reward {spec.spec!r} was not loaded within {seconds:g} s; it was ended: {LATE}"
        ) from None
    except Ended as how:
        raise ParetuneError(f"reward {spec.spec!r} ended its process while it was loaded, {how}") from None
    if "error" in answer:
        raise ParetuneError(answer["error"])
    return answer["value"]
