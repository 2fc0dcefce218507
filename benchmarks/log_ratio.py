"""How far a sampling pass and a training pass differ before the first update: python benchmarks/log_ratio.py

Both passes run the same weights on the same states, so the log-ratio of a stochastic step should be zero.
What is left of it is rounding, and Flow-GRPO clips the ratio at 1e-4: a difference of that size is mistaken
for a change of the policy. For each embedded model and dtype it prints the mean and the largest |log-ratio|
over all samples and SDE steps of the first epoch, twice:
  passes    the training pass of the trainer, in smaller batches than the sampling pass
  rounding  a pass with the same (rounded) weights that computes in float32: by so much the ratio may differ
            where sampling and training do not use the same kernels, as on another device
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from paretune.config import RunConfig
from paretune.models.conditions import Conditions
from paretune.models.flow import stochastic_step
from paretune.planning.methods import build_plan
from paretune.recipes import find_recipe, load_config
from paretune.stages.map import mixture_of
from paretune.training.expert import ExpertTrainer
from paretune.training.objectives.flow import Rollouts

DTYPES = ("float32", "bfloat16", "float16")


def config_of(recipe: str, dtype: str, autocast: bool) -> RunConfig:
    """A shipped recipe with flow_grpo's SDE steps, in a dtype."""
    sets = [f"model.dtype={dtype}", f"train.autocast={str(autocast).lower()}", "objective.name=flow_grpo",
            "objective.options={}", "train.prompts_per_epoch=4", "train.group_size=12",
            "train.updates_per_epoch=1", "train.micro_batch=48"]  # fmt: skip
    return load_config(find_recipe(recipe), sets)


def log_ratios(trainer: ExpertTrainer, rollouts: Rollouts, micro: int) -> torch.Tensor:
    """|log-ratio| of every sample and step of some rollouts, in training batches of `micro`. [B, W]."""
    objective: Any = trainer.objective
    t, sampling = rollouts.trajectories, objective.sampling
    assert t.states is not None
    assert t.log_probs is not None
    index = rollouts.index.repeat_interleave(trainer.config.train.group_size)
    found = torch.zeros_like(t.log_probs)
    for part in torch.arange(len(index)).split(micro):
        conditions = trainer.conditions.select(index[part])
        for place, number in enumerate(range(*sampling.window)):
            x, after = t.states[part, place], t.states[part, place + 1]
            sigma = torch.full((len(part),), objective.schedule.sigmas[number])
            v = objective.velocity(x, sigma, conditions)
            step = stochastic_step(objective.schedule, number, sampling, x, v, sample=after)
            found[part, place] = (step.log_prob.detach() - t.log_probs[part, place]).abs()
    return found


def in_float32(trainer: ExpertTrainer) -> None:
    """Let a trainer's model compute in float32, with the weights and embeddings that it has."""
    policy: Any = trainer.policy
    policy.transformer.float()
    policy.dtype, policy.autocast = torch.float32, False
    tensors = trainer.conditions.tensors().items()
    trainer.conditions = Conditions.of_tensors(
        {name: value.float() if value.is_floating_point() else value for name, value in tensors}
    )


def main() -> None:
    """Print one line for each model and dtype."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", nargs="+", default=["quickstart", "pictures-flux"])
    parser.add_argument("--micro", type=int, default=8, help="samples of a training pass, of 48")
    parser.add_argument("--autocast", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for recipe in args.recipes:
        for dtype in DTYPES:
            config = config_of(recipe, dtype, args.autocast)
            task = build_plan(config).methods[0].rounds[0].tasks[0]
            with tempfile.TemporaryDirectory() as folder:
                trainer = ExpertTrainer(config, task, Path(folder), mixture_of(config, task), None, "cpu")
            rollouts = trainer.rollout(torch.Generator().manual_seed(0))
            line = {"recipe": recipe, "dtype": dtype}
            for name in ("passes", "rounding"):
                if name == "rounding":
                    in_float32(trainer)
                values = log_ratios(trainer, rollouts, args.micro)
                line |= {f"{name}_mean": f"{values.mean():.1e}", f"{name}_max": f"{values.max():.1e}"}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
