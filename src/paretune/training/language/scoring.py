"""Our rewards as reward functions of TRL: one for each prompt set. All score at once; costs change sign."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ...config import ObjectiveConfig
from ..mixture import Mixture, Scores
from .watch import Watch

RewardFunction = Callable[..., list[float | None]]


def distinct(answers: Sequence[str], group: int) -> float:
    """The share of different answers within groups that follow each other, a mean over them."""
    parts = [answers[i : i + group] for i in range(0, len(answers), group)]
    return sum(len(set(part)) / len(part) for part in parts) / len(parts)


class Scoring:
    """Scores the answers of an epoch. The G answers of a group follow each other."""

    def __init__(self, mixture: Mixture, watch: Watch, group: int, timeout: float) -> None:
        self.mixture, self.watch, self.group, self.timeout = mixture, watch, group, timeout
        self._last: tuple[Any, Scores] | None = None

    def functions(self) -> list[RewardFunction]:
        """One function for each prompt set: its scores, greater is better, None where it does not apply."""
        return [self._function(i) for i in range(len(self.mixture.prompt_sets))]

    def _function(self, place: int) -> RewardFunction:
        prompt_set = self.mixture.prompt_sets[place]

        def reward(completions: Sequence[str], index: Sequence[int], **_: Any) -> list[float | None]:
            scores = self._score(completions, index)
            applies = scores.applies[place].repeat_interleave(self.group).tolist()
            values = prompt_set.better(scores.raw[place]).flatten().tolist()
            return [v if applied else None for v, applied in zip(values, applies, strict=True)]

        reward.__name__ = prompt_set.reward.name
        return reward

    def _score(self, completions: Sequence[str], index: Sequence[int]) -> Scores:
        if self._last is not None and self._last[0] is completions:
            return self._last[1]
        start = time.perf_counter()
        prompts = torch.tensor(list(index))[:: self.group]
        scores = self.mixture.score(list(completions), prompts, self.timeout)
        facts, now = self.watch.facts, time.perf_counter()
        told = self._of_all(scores, prompts)
        facts.reward, facts.spread = told.mean(), told.spread()
        crew = self.watch.crew
        facts.diversity = crew.sums({"distinct": distinct(completions, self.group)})["distinct"] / crew.size
        facts.scored_at, facts.seconds_score = now, now - start
        self._last = (completions, scores)
        return scores

    def _of_all(self, own: Scores, prompts: torch.Tensor) -> Scores:
        """The scores of all processes' groups. prompts: this process's, [P / n]."""
        crew, groups = self.watch.crew, len(prompts) * self.watch.crew.size
        if crew.size == 1:
            return own
        raw = crew.gather(own.raw.transpose(0, 1).contiguous(), 1, groups)
        return self.mixture.joined(raw, crew.gather(prompts, 1, groups))

    def arguments(self, objective: ObjectiveConfig) -> dict[str, Any]:
        """TRL's arguments for joint methods.

        They say how TRL makes one advantage of several rewards (morl_dr, and experts that lean on other
        rewards), or of the reward of each prompt (morl_d).
        """
        whole = self.mixture.joint
        weights = [s.weight if whole else 1.0 for s in self.mixture.prompt_sets]
        later = whole and objective.joint == "normalise_then_sum"
        order = "normalize_then_sum" if later else "sum_then_normalize"
        return {"reward_weights": weights, "multi_objective_aggregation": order}
