"""Which objective raises each reward most in the same wall time on one thread?

    python benchmarks/objectives.py --seconds 120 --out runs/bench-objectives.json

Every (objective, reward) pair trains from the same base with the same seed and sampling until its time is up,
then both are measured on held-out prompts with the same noise. One row a pair: base, after, gain, standard
error of the gain.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from paretune.config import RunConfig
from paretune.data.prompts import load_prompts
from paretune.models.flow import Sampling, sample
from paretune.planning.methods import build_plan
from paretune.recipes import find_recipe, load_config
from paretune.rewards.base import load_reward, oriented, score_samples
from paretune.training.expert import ExpertTrainer
from paretune.training.mixture import Mixture, PromptSet

OBJECTIVES = {
    "nft": ["objective.name=nft"],
    "flow_grpo, all steps": ["objective.name=flow_grpo", "objective.options.clip_range=1e-3"],
    "flow_grpo, window": [
        "objective.name=flow_grpo", "objective.options.clip_range=1e-3", "objective.options.window=[0,2]",
        "objective.shared_noise=true",
    ],
    "flow_grpo, window, cps": [
        "objective.name=flow_grpo", "objective.options.clip_range=1e-3", "objective.options.window=[0,2]",
        "objective.shared_noise=true", "objective.options.sampler=cps",
    ],
    "awm": ["objective.name=awm", "objective.options.clip_range=0.2"],
}  # fmt: skip


@torch.no_grad()
def held_out(trainer: ExpertTrainer, config: RunConfig, name: str, count: int) -> torch.Tensor:
    """Scores of the trained adapter on the first `count` held-out prompts, fixed noise. [count]."""
    own = config.rewards[name]
    prompts = load_prompts(own.eval_prompts)[:count]
    policy = trainer.policy
    noise = policy.initial_noise(count, torch.Generator().manual_seed(7))
    sampling = Sampling(config.evaluate.steps, config.model.guidance_scale)
    pictures = policy.decode(sample(policy, trainer.held_out, noise, sampling).clean)  # type: ignore[attr-defined]
    reward = trainer.mixture.prompt_sets[0].reward
    return oriented(reward, score_samples(reward, pictures, prompts))


def measure(
    name: str, objective: str, seconds: float, count: int, sets: list[str], recipe: str = "quickstart"
) -> dict[str, object]:
    """Train one pair for `seconds` and measure it."""
    config = load_config(find_recipe(recipe), [*OBJECTIVES[objective], *sets])
    task = next(t for t in build_plan(config).methods[0].rounds[0].tasks if t.reward == name)
    own = config.rewards[name]
    train, test = load_prompts(own.prompts), load_prompts(own.eval_prompts)[:count]
    reward = load_reward(own.reward, name=name, **own.options)
    both = Mixture([PromptSet(reward, [*train, *test])])  # encoded together, trained on `train` alone
    trainer = ExpertTrainer(config, task, Path("unused"), both, None, "cpu")
    trainer.held_out = trainer.conditions.select(torch.arange(len(train), len(train) + count))  # type: ignore[attr-defined]
    trainer.mixture = Mixture([PromptSet(reward, train)])
    before = held_out(trainer, config, name, count)
    start, epochs, inside = time.perf_counter(), 0, 0.0
    while time.perf_counter() - start < seconds:
        inside += trainer.epoch()["seconds"]
        epochs += 1
    gain = held_out(trainer, config, name, count) - before
    return {
        "objective": objective, "reward": name, "epochs": epochs,
        "seconds": round(time.perf_counter() - start, 1), "base": round(float(before.mean()), 4),
        "after": round(float((before + gain).mean()), 4), "gain": round(float(gain.mean()), 4),
        "stderr": round(float(gain.std() / count**0.5), 4),
    }  # fmt: skip


def main() -> None:
    """Parse, measure every pair, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--objective", action="append", choices=list(OBJECTIVES))
    parser.add_argument("--reward", action="append")
    parser.add_argument("--set", action="append", default=[], dest="sets")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for objective in args.objective or OBJECTIVES:
        for name in args.reward or ("geneval", "ocr", "preference"):
            rows.append(measure(name, objective, args.seconds, args.prompts, args.sets, args.recipe))
            print(json.dumps(rows[-1]), flush=True)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
