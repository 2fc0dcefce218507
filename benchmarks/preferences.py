"""Which preference objective raises each reward most for the same number of passes through the model?

    python benchmarks/preferences.py --passes 200000 --seeds 3 --out runs/bench-preferences.json

A pass is one sample through the transformer; a backward pass counts as two more, and drawing samples counts.
Every (objective, reward, seed) trains from the same base until its passes are spent, then base and result are
measured on held-out prompts with the same noise. Of each objective the mean gain over seeds is printed, with
its standard error over seeds and prompts, and the difference to diffusion_dpo on the same seeds and prompts.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from paretune.data.prompts import load_prompts
from paretune.models.flow import FlowPolicy, Sampling, sample
from paretune.models.loading import open_policy
from paretune.planning.methods import build_plan
from paretune.recipes import find_recipe, load_config
from paretune.rewards.base import load_reward, oriented, score_samples
from paretune.training.expert import ExpertTrainer
from paretune.training.mixture import Mixture, PromptSet
from paretune.training.preferences.presets import PRESETS

AGAINST = "diffusion_dpo"
SETS: dict[str, list[str]] = {
    "nft": [], "tree_grpo": ["train.group_size=9", "objective.options.branches=3"],
    # Left out: frames need clips, and captions a side need a file.
    **{name: [] for name in PRESETS if name not in ("dense_dpo", "sem_dpo")},
}  # fmt: skip


def counted(policy: Any) -> Counter[str]:
    """Count the passes of a policy from now on, under "passes"."""
    count, plain = Counter[str](), policy.velocity

    def velocity(x: torch.Tensor, *rest: Any) -> torch.Tensor:
        count["passes"] += len(x) * (3 if torch.is_grad_enabled() else 1)
        return plain(x, *rest)

    policy.velocity = velocity
    return count


def measure(
    recipe: str, objective: str, name: str, seed: int, passes: int, prompts: int, sets: list[str]
) -> dict[str, Any]:
    """Train one expert and measure it. `gains`: of each held-out prompt."""
    changes = [f"objective.name={objective}", *SETS[objective], f"seed={seed}", *sets]
    config = load_config(find_recipe(recipe), changes)
    task = next(t for t in build_plan(config).methods[0].rounds[0].tasks if t.reward == name)
    own = config.rewards[name]
    reward = load_reward(own.reward, name=name, **own.options)
    mixture = Mixture([PromptSet(reward, load_prompts(own.prompts))])
    trainer = ExpertTrainer(config, task, Path("unused"), mixture, None, "cpu")
    tests = load_prompts(own.eval_prompts)[:prompts]
    reader: Any = open_policy(config.model, "cpu")  # the trainer's has released its text encoders
    conditions = reader.encode([p.text for p in tests], config.model.guidance_scale > 1)

    @torch.no_grad()
    def held_out() -> torch.Tensor:
        policy: FlowPolicy = trainer.policy
        noise = policy.initial_noise(len(tests), torch.Generator().manual_seed(seed))
        sampling = Sampling(config.evaluate.steps, config.model.guidance_scale)
        pictures = policy.decode(sample(policy, conditions, noise, sampling).clean)
        return oriented(reward, score_samples(reward, pictures, tests))

    before, count, epochs = held_out(), counted(trainer.policy), 0
    while count["passes"] < passes:
        trainer.epoch()
        epochs += 1
    spent = count["passes"]
    gains = held_out() - before
    return {
        "objective": objective, "reward": name, "seed": seed, "epochs": epochs, "passes": spent,
        "base": round(float(before.mean()), 4), "gain": round(float(gains.mean()), 4),
        "gains": [round(g, 6) for g in gains.tolist()],
    }  # fmt: skip


def table_lines(rows: list[dict[str, Any]]) -> list[str]:
    """A line for each objective and reward: its gain, and its difference to AGAINST."""
    lines = []
    for objective, name in dict.fromkeys((row["objective"], row["reward"]) for row in rows):
        own = _gains(rows, objective, name)
        line = f"{objective:>14} {name:>12} {_mean(list(own.values()))}"
        other = _gains(rows, AGAINST, name)
        if objective != AGAINST and own.keys() == other.keys():
            line += f"   to {AGAINST} {_mean([own[key] - other[key] for key in own])}"
        lines.append(line)
    return lines


def _gains(rows: list[dict[str, Any]], objective: str, name: str) -> dict[tuple[int, int], float]:
    """The gains by seed and prompt."""
    own = [row for row in rows if (row["objective"], row["reward"]) == (objective, name)]
    return {(row["seed"], i): gain for row in own for i, gain in enumerate(row["gains"])}


def _mean(values: list[float]) -> str:
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{statistics.fmean(values):+.4f} ± {error:.4f}"


def main() -> None:
    """Parse, measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--passes", type=int, default=200_000)
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--objective", action="append", choices=list(SETS))
    parser.add_argument("--reward", action="append")
    parser.add_argument("--set", action="append", default=[], dest="sets")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for objective in args.objective or SETS:
        for name in args.reward or ("geneval", "ocr", "preference"):
            for seed in range(args.seeds):
                rows.append(
                    measure(args.recipe, objective, name, seed, args.passes, args.prompts, args.sets)
                )
                print(json.dumps({k: v for k, v in rows[-1].items() if k != "gains"}), flush=True)
    print("\n".join(table_lines(rows)))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
