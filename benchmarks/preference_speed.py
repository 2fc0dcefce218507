"""Does an update of Diffusion-DPO take the time that its passes through the model predict, against NFT's?

    python benchmarks/preference_speed.py

A pass is one sample through the transformer; a backward pass counts as two more, so a pair at one noise level
costs 8, and two samples of NFT too. Both objectives train on as many samples of the same prompts, in the same
micro-batches. Their passes are counted and their updates timed in turn, and each two times give a ratio: its
median is printed beside the ratio of passes. Exit code 1: they differ by more than --within.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from preferences import count_passes

from paretune.data.prompts import load_prompts
from paretune.planning.methods import build_plan
from paretune.recipes import find_recipe, load_config
from paretune.rewards.base import load_reward
from paretune.training.expert import ExpertTrainer
from paretune.training.mixture import Mixture, PromptSet


class Timed:
    """One objective at its first epoch's samples, of which an update is repeated."""

    def __init__(self, recipe: str, objective: str, reward: str, sets: list[str]) -> None:
        changes = [f"objective.name={objective}", "train.updates_per_epoch=1", *sets]
        config = load_config(find_recipe(recipe), changes)
        task = next(t for t in build_plan(config).methods[0].rounds[0].tasks if t.reward == reward)
        own = config.rewards[reward]
        scorer = load_reward(own.reward, name=reward, **own.options)
        mixture = Mixture([PromptSet(scorer, load_prompts(own.prompts))])
        self.trainer = ExpertTrainer(config, task, Path("unused"), mixture, None, "cpu")
        generator = torch.Generator().manual_seed(0)
        self.batch = self.trainer.objective.collect(self.trainer, generator).batch
        assert self.batch is not None
        self.slots = self.trainer.objective.slots
        self.trainer.objective.begin_epoch(self.batch, generator)
        self.trainer.objective.end_update()  # NFT's first update of an epoch saves a pass
        self.samples = torch.arange(len(self.batch.group))
        self.count: Any = count_passes(self.trainer.policy)
        self.once()  # the first one also warms up
        self.passes = self.count["passes"] / (len(self.samples) * self.slots)

    def once(self) -> float:
        """The seconds of one update's gradient, for each sample and noise level."""
        begin = time.process_time()  # of this process alone: other work on the machine does not count
        self.trainer.objective.accumulate(self.samples)
        seconds = time.process_time() - begin
        self.trainer.state.optimiser.zero_grad()
        return seconds / (len(self.samples) * self.slots)


def main() -> None:
    """Parse, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--reward", default="geneval")
    parser.add_argument("--objective", default="diffusion_dpo")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--within", type=float, default=0.05)
    parser.add_argument("--set", action="append", default=[], dest="sets")
    args = parser.parse_args()
    torch.set_num_threads(1)
    own = Timed(args.recipe, args.objective, args.reward, args.sets)
    keep = ["train.group_size=2"]  # NFT trains on all samples of a group: as many as a pair
    other = Timed(args.recipe, "nft", args.reward, [*args.sets, *keep])
    ratios = [own.once() / other.once() for _ in range(args.repeats)]
    measured, predicted = statistics.median(ratios), own.passes / other.passes
    apart = measured / predicted - 1
    print(json.dumps({
        "objective": args.objective, "passes_a_sample": own.passes, "passes_a_sample_of_nft": other.passes,
        "ratio_of_passes": round(predicted, 4), "ratio_of_times": round(measured, 4),
        "apart": round(apart, 4), "spread": round(statistics.stdev(ratios), 4), "repeats": args.repeats,
    }))  # fmt: skip
    sys.exit(abs(apart) > args.within)


if __name__ == "__main__":
    main()
