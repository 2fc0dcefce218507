"""What it costs that a user's own reward is called in another process: seconds, and the share of an update.

    python benchmarks/own_reward.py [--recipe quickstart] [--repeats 20]

Scores the same pictures, as many as an epoch of the recipe draws, with one function in this process and
in the other one, alternating; then trains two epochs of an expert to time an update. Prints one
JSON object. The scores of both must be equal to the last bit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from paretune.config import RunConfig
from paretune.planning.methods import build_plan
from paretune.recipes import find_recipe, load_config
from paretune.rewards.base import build_reward, load_reward, score_samples
from paretune.stages.map import mixture_of
from paretune.training.expert import ExpertTrainer
from paretune.types import Prompt

OWN = "def mine(pictures, prompts):\n    return pictures.flatten(1).std(1)\n"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    config = load_config(find_recipe(options.recipe))
    torch.set_num_threads(config.executor.threads)
    with tempfile.TemporaryDirectory() as folder:
        update, pictures = _update(config, Path(folder))
        file = Path(folder) / "mine.py"
        file.write_text(OWN)
        spec, prompts = f"{file}:mine", [Prompt("a red circle")] * len(pictures)
        start = time.perf_counter()
        apart = load_reward(spec)
        loading = time.perf_counter() - start
        here = build_reward(spec, None, {})
        seconds: dict[str, list[float]] = {"here": [], "apart": []}
        for _ in range(options.repeats):
            for name, reward in (("here", here), ("apart", apart)):
                start = time.perf_counter()
                scores = score_samples(reward, pictures, prompts)
                seconds[name].append(time.perf_counter() - start)
                assert torch.equal(scores, pictures.flatten(1).std(1))
    more = statistics.median(seconds["apart"]) - statistics.median(seconds["here"])
    print(json.dumps({
        "pictures": list(pictures.shape), "seconds_update": round(update, 3),
        "seconds_here": round(statistics.median(seconds["here"]), 5),
        "seconds_apart": round(statistics.median(seconds["apart"]), 5),
        "share_of_an_update": round(more / update, 5), "seconds_loading": round(loading, 2),
    }))  # fmt: skip


def _update(config: RunConfig, folder: Path) -> tuple[float, torch.Tensor]:
    """Seconds of an epoch of an expert, the shorter of two, and the pictures that one scores."""
    task = build_plan(config).methods[0].rounds[0].tasks[0]
    trainer = ExpertTrainer(config, task, folder, mixture_of(config, task), None, "cpu")
    seconds = min(trainer.epoch()["seconds"] for _ in range(2))
    rollouts = trainer.rollout(torch.Generator().manual_seed(0))
    return seconds, trainer.policy.decode(rollouts.trajectories.clean)


if __name__ == "__main__":
    main()
