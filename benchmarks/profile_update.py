"""Where the wall time of an epoch goes: python benchmarks/profile_update.py [--reward ocr] [--epochs 3]

Inside the transformer means its forward passes (sampling and training) and the backward pass, which runs
through the transformer and a loss of a few element-wise operations.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from paretune.planning.methods import build_plan
from paretune.recipes import find_recipe, load_config
from paretune.stages.map import mixture_of
from paretune.training.expert import ExpertTrainer


def timed(function: Callable[..., Any], sums: dict[str, float], key: str) -> Callable[..., Any]:
    """The function, its wall time added to sums[key]."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            sums[key] += time.perf_counter() - start

    return wrapped


def main() -> None:
    """Train a few epochs on one thread and print the shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reward", default="ocr")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--recipe", default="quickstart")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = load_config(find_recipe(args.recipe))
    task = next(t for t in build_plan(config).methods[0].rounds[0].tasks if t.reward == args.reward)
    trainer = ExpertTrainer(config, task, Path("unused"), mixture_of(config, task), None, "cpu")
    trainer.epoch()  # warm up
    sums = {"forward": 0.0, "backward": 0.0}
    trainer.policy.transformer.forward = timed(trainer.policy.transformer.forward, sums, "forward")
    torch.Tensor.backward = timed(torch.Tensor.backward, sums, "backward")  # type: ignore[method-assign]
    rows = [trainer.epoch() for _ in range(args.epochs)]
    total = sum(r["seconds"] for r in rows)
    result = {
        "epochs": args.epochs,
        "seconds_an_epoch": round(total / args.epochs, 2),
        "share_inside_transformer": round(sum(sums.values()) / total, 3),
        **{f"share_{k}": round(v / total, 3) for k, v in sums.items()},
        "share_scoring": round(sum(r["seconds_score"] for r in rows) / total, 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
