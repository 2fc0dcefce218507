"""Seconds that the demo page takes to answer: the first answer, and after a changed slider or prompt.

    python benchmarks/page_time.py runs/quickstart

The page's own answers without a browser, on the recipe's threads: wall seconds, and the CPU seconds of this
process. Loading is of the model, the rewards and the front. Each change is the median of a few different
ones, for the page remembers what it was asked.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

from paretune.demo.serving import open_answers
from paretune.types import ParetuneError

REPEATS = 5


def taken(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds of some work."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(run: Path) -> dict[str, tuple[float, float]]:
    """What was asked -> wall and CPU seconds."""
    told: dict[str, tuple[float, float]] = {}
    opened = []
    told["loading"] = taken(lambda: opened.append(open_answers(run)))
    (answers,) = opened
    method, prompts = answers.methods[0], answers.examples()
    even = [1.0] * len(answers.source.rewards)
    told["first answer"] = taken(lambda: answers.answer(prompts[0], even, method, "", 0))
    moved = [[1.0 + i, *even[1:]] for i in range(1, REPEATS + 1)]
    sliders = [taken(lambda w=w: answers.answer(prompts[0], w, method, "", 0)) for w in moved]
    others = islice(cycle(prompts[1:] or prompts), REPEATS)  # each with a seed of its own: none was drawn
    texts = [
        taken(lambda t=t, s=s: answers.answer(t, even, method, "", s)) for s, t in enumerate(others, start=1)
    ]
    for name, times in (("moved slider", sliders), ("new prompt", texts)):
        wall, cpu = zip(*times, strict=True)
        told[name] = statistics.median(wall), statistics.median(cpu)
    return told


def main() -> None:
    """Print a line a question."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    args = parser.parse_args()
    try:
        told = measure(args.run)
    except ParetuneError as error:
        parser.exit(2, f"error: {error}\n")
    for name, (wall, cpu) in told.items():
        print(f"{name}: {wall:.2f} s, of one core {cpu:.2f} s")


if __name__ == "__main__":
    main()
