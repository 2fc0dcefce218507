"""An adapter beside all weights at one budget: the same samples, updates and prompts.

    python benchmarks/whole_weights.py [--recipe quickstart] [--seeds 0 1 2] [--rates 1e-4 3e-4]
        [--set KEY=VALUE ..] [--out FOLDER]

Every seed runs the recipe once with its adapter and once with `lora: null` for each rate. All weights take a
lower rate than an adapter; the best of the rates by the mean over the seeds is what to compare. Prints one
row a run: the hypervolumes of the base and of MapReduce's last round, the seconds of training and of the
whole run, the peak memory of the largest process, and the bytes that an expert sends.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paretune.adapters.store import WEIGHTS
from paretune.adapters.whole import whole_weights


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-4, 3e-4])
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--out", type=Path, help="a folder for the runs; by default they are removed")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(run_here(options.recipe, options.one, options.overrides)))
        return
    kinds = {"adapter": list[str](), **{
        f"all weights, {rate:g}": ["lora=null", f"train.learning_rate={rate:g}"] for rate in options.rates
    }}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        place = options.out or Path(folder)
        for seed in options.seeds:
            for kind, sets in kinds.items():
                overrides = [*options.overrides, *sets, f"seed={seed}", "executor.workers=1"]
                out = place / f"{kind.replace(', ', '-').replace(' ', '-')}-seed-{seed}"
                told = {"seed": seed, "trained": kind, **run_apart(options.recipe, out, overrides)}
                print(json.dumps(told), flush=True)


def run_apart(recipe: str, out: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """A run in a process of its own, so that the peak memory is its own."""
    sets = [part for override in overrides for part in ("--set", override)]
    command = [sys.executable, __file__, "--recipe", recipe, "--one", str(out), *sets]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def run_here(recipe: str, out: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Run the recipe, and read what it left."""
    sets = [part for override in overrides for part in ("--set", override)]
    command = [sys.executable, "-m", "paretune", "run", recipe, "--out", str(out), "--quiet", *sets]
    subprocess.run(command, check=True, stdout=sys.stderr)
    summary = json.loads((out / "summary.json").read_text())
    volumes, seconds = summary["hypervolume"], summary["timing"]
    last = sorted(name for name in volumes if name.startswith("mapreduce@"))[-1]
    experts = sorted(out.glob("round-1/experts/*"))
    sent = (experts[0] / (whole_weights(experts[0]) or WEIGHTS)).stat().st_size
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1 if sys.platform == "darwin" else 1024)
    return {
        "base": volumes["base"], "mapreduce": volumes[last], "seconds_map": seconds["map"],
        "seconds": seconds["total"], "peak_mb": round(peak), "sent_mb": round(sent / 1e6, 2),
    }  # fmt: skip


if __name__ == "__main__":
    main()
