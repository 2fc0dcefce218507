"""A look of a reward's judge at some samples of an expert, every few epochs: `stop_when.judge`.

The row of metrics of such an epoch has `judge`, the judge's mean, and `judged`, the reward's mean of the same
samples, both turned around for a cost so that greater is better. Nothing is trained on them.
"""

from __future__ import annotations

import torch

from ..config import RunConfig
from ..planning.plan import ExpertTask
from ..rewards.base import applies_to, load_reward, oriented, score_samples
from ..types import ParetuneError, take
from .objectives.settings import draws_samples
from .scoring import Scores, Scoring

MOST = 16  # samples of a look, one of each prompt


class Judging:
    """The judge of an expert's reward. told: what it said in the epoch that `begin` began."""

    def __init__(self, spec: str, every: int) -> None:
        """spec: of the judge. every: epochs from one look to the next, the first in the first epoch."""
        self._judge, self._every, self._due = load_reward(spec), every, False
        self.told: dict[str, float] = {}

    def begin(self, epoch: int) -> None:
        """Begin an epoch. epoch: those that are done."""
        self._due, self.told = epoch % self._every == 0, {}

    def look(self, scoring: Scoring, scores: Scores) -> None:
        """Score the first sample of each of some prompts, once in an epoch that is due."""
        own, size = scoring.chosen[0], scoring.shape[1]
        if not self._due:
            return
        each = range(0, len(own.rows), size)
        picked = [i for i in each if applies_to(self._judge, own.prompts[i])][:MOST]
        if not picked:
            return
        self._due = False
        rows, prompts = own.rows[picked], [own.prompts[i] for i in picked]
        with torch.random.fork_rng([]):  # training draws what it would have drawn without a look
            values = score_samples(self._judge, take(scoring.samples, rows), prompts, timeout=scoring.timeout)
        rewards = scores.raw[0].flatten()[rows]
        self.told = {
            "judge": float(oriented(self._judge, values).mean()),
            "judged": float(oriented(own.reward, rewards).mean()),
        }


def judging_of(config: RunConfig, task: ExpertTask) -> Judging | None:
    """The judging of an expert of one reward that has a judge, where the recipe asks for it."""
    spec = config.rewards[task.rewards[0]].judge if len(task.rewards) == 1 else None
    every = None if config.stop_when is None else config.stop_when.judge
    return None if every is None or spec is None else Judging(spec, every)


def check_judging(config: RunConfig) -> None:
    """Raise ParetuneError where `stop_when.judge` could never look at a sample."""
    if config.stop_when is None or config.stop_when.judge is None:
        return
    if not any(own.judge for own in config.rewards.values()):
        raise ParetuneError("stop_when.judge: no reward names a judge; give one by rewards.NAME.judge")
    if not draws_samples(config.objective):
        raise ParetuneError(
            f"stop_when.judge: objective {config.objective.name} draws no samples that a judge could score"
        )
