"""The prompts that an expert trains on, and the rewards that score them: one prompt set, or several mixed.

Shapes: R rewards, P prompts drawn in an epoch, G samples of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..config import ObjectiveConfig
from ..ops.advantages import joint_advantages
from ..ops.dealing import deal
from ..ops.drawn_weights import draw_weights, weighted_advantages
from ..ops.scaling import Scaling
from ..rewards.base import applies_to, oriented
from ..types import Prompt, Reward, Samples
from .judging import Judging
from .scoring import Chosen, Scores, Scoring

__all__ = ["Mixture", "PromptSet", "Scores"]


@dataclass(frozen=True)
class PromptSet:
    """A reward and its prompts.

    prompts: none for a reward that an expert only leans on. weight: of the reward in a weighted sum. kl: the
    weight of the anchor for an expert of this reward. pairs: the preferences that an expert of this reward
    trains on, see `data.preferences`, or None. scale: puts its scores on a scale beside other rewards', or
    None.
    """

    reward: Reward
    prompts: Sequence[Prompt]
    weight: float = 1.0
    kl: float = 0.0
    pairs: str | None = None
    scale: Scaling | None = None

    def better(self, raw: torch.Tensor) -> torch.Tensor:
        """Its scores on its scale, with the sign of a cost changed, so that greater is better."""
        return oriented(self.reward, raw if self.scale is None else self.scale(raw))


class Mixture:
    """Draws prompts evenly from several prompt sets, scores samples, and computes their advantages.

    scoring: "own" scores each prompt with the reward of its set, "all" with every reward that applies to it,
    "lean" with the reward of its set and with every other that applies to it, "drawn" as "all" with weights
    that are drawn for each prompt.
    """

    def __init__(self, prompt_sets: Sequence[PromptSet], scoring: str = "own") -> None:
        self.prompt_sets, self.scoring = tuple(prompt_sets), scoring
        self.prompts = [p for s in prompt_sets for p in s.prompts]
        owner = [i for i, s in enumerate(prompt_sets) for _ in s.prompts]
        own = torch.tensor([[o == i for o in owner] for i in range(len(prompt_sets))])
        fits = own
        if scoring != "own":
            fits = torch.tensor([[applies_to(s.reward, p) for p in self.prompts] for s in prompt_sets])
        self._owner, self._applies = torch.tensor(owner), fits | own if scoring == "lean" else fits
        self._told = own if scoring == "lean" else self._applies
        self.judging: Judging | None = None  # looks at some of the samples that are scored

    @property
    def joint(self) -> bool:
        """Whether a sample may have the scores of several rewards."""
        return self.scoring != "own"

    @property
    def weights(self) -> torch.Tensor:
        """Of each reward in a sum, [R]: 1 where a prompt has one reward, so that nothing is summed."""
        weights = torch.tensor([s.weight for s in self.prompt_sets])
        return weights if self.joint else torch.ones_like(weights)

    def shares(self, applies: torch.Tensor) -> torch.Tensor:
        """What each reward counts for a prompt: its weight, or 1 where all that apply have none. [R, P]."""
        own = applies * self.weights[:, None]
        return torch.where(own.sum(0) > 0, own, applies.to(own.dtype))

    @property
    def kl(self) -> float:
        """The weight of the anchor: the mean over the prompt sets."""
        drawn = [s for s in self.prompt_sets if s.prompts]
        return sum(s.kl for s in drawn) / len(drawn)

    @property
    def pairs(self) -> str | None:
        """The preferences of the only set with prompts, or None."""
        drawn = [s for s in self.prompt_sets if s.prompts]
        return drawn[0].pairs if len(drawn) == 1 else None

    def draw(
        self, count: int, generator: torch.Generator, allowed: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Draw the indices of `count` prompts (fewer if a set is smaller), without repetition. [P].

        allowed: bool for every prompt, whether it may be drawn; None for all.
        """
        sets = [i for i, s in enumerate(self.prompt_sets) if s.prompts]
        free = torch.ones_like(self._owner, dtype=torch.bool) if allowed is None else allowed
        places = [((self._owner == i) & free).nonzero().flatten() for i in sets]
        sizes = deal(count, [len(members) for members in places], generator)
        drawn = []
        for members, size in zip(places, sizes, strict=True):
            drawn.append(members[torch.randperm(len(members), generator=generator)[:size]])
        return torch.cat(drawn)

    def draw_weights(self, index: torch.Tensor, generator: torch.Generator) -> torch.Tensor | None:
        """Weights of the rewards for each of P prompts, [P, R], where they are drawn; otherwise None."""
        return draw_weights(self._applies[:, index], generator) if self.scoring == "drawn" else None

    def score(self, samples: Samples, index: torch.Tensor, timeout: float) -> Scores:
        """Score P groups of G samples.

        Args:
            samples: P * G samples, prompt-major.
            index: the prompts of the groups, [P].
            timeout: seconds that one call of a reward may take.
        """
        scoring = self.begin_scoring(index, len(samples) // len(index), timeout)
        scoring.add(samples)
        return scoring.scores()

    def begin_scoring(self, index: torch.Tensor, group: int, timeout: float) -> Scoring:
        """Score P groups of G samples that come one part after the other. See `score`."""
        own = []
        for prompt_set, rows in zip(self.prompt_sets, self._applies[:, index], strict=True):
            kept = rows.nonzero().flatten()
            chosen = (kept[:, None] * group + torch.arange(group)).flatten()
            prompts = [self.prompts[int(index[i])] for i in kept for _ in range(group)]
            own.append(Chosen(prompt_set.reward, chosen, prompts))
        applies, told = self._applies[:, index], self._told[:, index]
        scoring = Scoring(own, (len(index), group), applies, told, timeout)
        if self.judging is not None:
            scoring.look = self.judging.look
        return scoring

    def joined(
        self, raw: torch.Tensor, index: torch.Tensor, weights: torch.Tensor | None = None
    ) -> Scores:
        """The scores of P groups from their values, [P, R, G]. index: the prompts of the groups, [P].

        weights: those that `draw_weights` gave.
        """
        return Scores(raw.transpose(0, 1), self._applies[:, index], self._told[:, index], weights)

    def oriented(self, scores: Scores) -> torch.Tensor:
        """The scores on their scales, with the sign of costs changed: greater is better. [R, P, G]."""
        return torch.stack([s.better(raw) for s, raw in zip(self.prompt_sets, scores.raw, strict=True)])

    def advantages(self, scores: Scores, settings: ObjectiveConfig) -> torch.Tensor:
        """Group-relative advantages; `settings` say how several rewards are joined. [P, G]."""
        better = self.oriented(scores)
        if scores.weights is not None:
            scaled = settings.advantage_std, settings.advantage_clip
            return weighted_advantages(better, scores.weights, scores.applies, *scaled)
        order = settings.joint if self.joint else "normalise_then_sum"
        return joint_advantages(
            better, self.weights, order, scores.applies, settings.advantage_std, settings.advantage_clip
        )
