"""Gains of `paretune eval`'s adapters over the base, the seeds of one model pooled.

    python benchmarks/pooled_eval.py runs/eval-128 final soup/merged soup/experts/geneval

An untargeted reward is stated for each prompt set by itself.

Adapters whose paths end alike are one model's seeds. Per reward: the mean, its standard error over seeds, and
the gain over the base with the standard error of the paired differences over prompts.
"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from pathlib import Path

from paretune.files import read_rows


def spread(values: list[float]) -> float:
    """Standard error of a mean."""
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def main() -> None:
    """Print a row a model and reward."""
    folder, *endings = sys.argv[1:]
    table: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in read_rows(Path(folder) / "evaluation.jsonl"):
        name = f"{row['reward']} on {row['prompt_set']}" if row["kind"] == "untargeted" else row["reward"]
        table[row["method"], name][row["prompt"]].append(row["value"])
    means = {key: {p: statistics.fmean(v) for p, v in prompts.items()} for key, prompts in table.items()}
    methods = list(dict.fromkeys(method for method, _ in means))
    print("| model | reward | base | mean | ± seeds | gain | ± prompts | share |")
    print("|" + "---|" * 8)
    for ending in endings:
        seeds = [m for m in methods if m.endswith(ending)]
        for reward in dict.fromkeys(reward for _, reward in means):
            base = means["base", reward]
            own = [statistics.fmean(means[s, reward].values()) for s in seeds]
            gaps = [statistics.fmean(means[s, reward][p] for s in seeds) - base[p] for p in base]
            start, gain = statistics.fmean(base.values()), statistics.fmean(gaps)
            print(f"| {ending} | {reward} | {start:.3f} | {statistics.fmean(own):.3f} | {spread(own):.3f} | "
                  f"{gain:+.3f} | {spread(gaps):.3f} | {gain / start:+.0%} |")  # fmt: skip


if __name__ == "__main__":
    main()
