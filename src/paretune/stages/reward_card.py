"""A reward card: what all rewards and judges of a recipe say about the base's samples, and how reliably."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..config import RunConfig
from ..data.prompts import load_prompts
from ..models.loading import open_policy
from ..models.memory import memory_errors, to_measure
from ..ops.reward_card import Scored, card, unreliable
from ..planning.plan import derive_seed
from ..rewards.base import applies_to
from ..types import Prompt, Reward, Samples, take
from .agreement import joined
from .evaluate import draw
from .reliability import scored, scored_again
from .scorers import Kind, scorers_of

CHECKED = 64  # samples of each scorer that are changed and scored again, at most
Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Drawn:
    """The base's samples. prompts: of each. groups: [N], the number of each sample's prompt."""

    samples: Samples
    prompts: list[Prompt]
    groups: np.ndarray


def reward_card(
    config: RunConfig, device: str, report: Report, prompts: int = 16, samples: int = 4
) -> dict[str, Any]:
    """Draw samples of the base on held-out prompts, and score them with every reward and judge.

    Args:
        config: the recipe.
        device: to draw on.
        report: called with the progress.
        prompts: of each reward's set.
        samples: of each prompt.

    Returns:
        `ops.reward_card.card`, and of each scorer `seconds` a sample and its `reliability`.
    """
    drawn = _draw(config, device, report, prompts, samples)
    scorers = list(_scorers(config))
    found: list[Scored] = []
    beside: dict[str, dict[str, Any]] = {}
    for done, (kind, of, name, scorer) in enumerate(scorers, start=1):
        rows = [i for i, prompt in enumerate(drawn.prompts) if applies_to(scorer, prompt)]
        values, seconds, steady = np.full(len(drawn.prompts), np.nan), None, {}
        if rows:
            chosen, asked = take(drawn.samples, torch.tensor(rows)), [drawn.prompts[i] for i in rows]
            timeout = config.executor.reward_timeout
            first = scored(scorer, chosen, asked, drawn.groups[rows], timeout)
            values[rows] = first.values
            steady, seconds = scored_again(scorer, first, CHECKED)
        low, high = scorer.range
        found.append(Scored(name, values, low, high, scorer.higher_is_better, kind, of))
        beside[name] = {"seconds": seconds, "reliability": steady}
        report({"folder": "scoring", "update": done, "epochs": len(scorers)})
    made = card(found, drawn.groups)
    for name, own in beside.items():
        made["scorers"][name] |= own
        made["notes"] += unreliable(name, own["reliability"])
    return {**made, "prompts": int(drawn.groups.max()) + 1, "samples": samples}


def _draw(config: RunConfig, device: str, report: Report, count: int, samples: int) -> Drawn:
    evaluate = config.evaluate.model_copy(update={"samples": samples})
    config = config.model_copy(update={"evaluate": evaluate})
    policy, parts, prompts = open_policy(config.model, device), list[Samples](), list[Prompt]()
    for done, (name, own) in enumerate(config.rewards.items(), start=1):
        asked = load_prompts(own.eval_prompts)[:count]
        with memory_errors(to_measure, config):
            parts.append(draw(policy, config, asked, derive_seed(config.seed, "reward card", name)))
        prompts += asked
        report({"folder": "drawing", "update": done, "epochs": len(config.rewards)})
    repeated = [prompt for prompt in prompts for _ in range(samples)]
    return Drawn(joined(parts), repeated, np.repeat(np.arange(len(prompts)), samples))


def _scorers(config: RunConfig) -> Iterator[tuple[Kind, str, str, Reward]]:
    """Every reward, judge and untargeted reward once: its kind, the reward that it judges, a name, itself."""
    names = set(config.rewards)
    for prompt_set in config.rewards:
        for kind, scorer in scorers_of(config, prompt_set):
            if kind == "reward":
                yield kind, "", scorer.name, scorer
                continue
            of, name = prompt_set if kind == "judge" else "", scorer.name
            name = f"{name} (judge of {of})" if of and name in names else name
            if name not in names:
                names.add(name)
                yield kind, of, name, scorer
