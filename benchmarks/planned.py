"""How near is `paretune plan --measure` to the run that it plans?

    python benchmarks/planned.py smollm2 [--set rounds=1 ..]

The recipe is planned, then run as a user would with one worker in a temporary folder, MapReduce LoRA alone.
The memory that the plan gives one expert, by its formulas and by its steps, is compared with the most that
any process of the run held (the experts' worker; Linux only), and the training's seconds with those of the
experts' epochs. A ratio above 1 says that the run took more than planned.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peak_memory import size, tree


def main() -> None:
    """Plan, run, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--set", action="append", default=[], dest="sets")
    args = parser.parse_args()
    sets = [*args.sets, "methods=[mapreduce]", "executor.workers=1"]
    words = [args.recipe, *(word for one in sets for word in ("--set", one))]
    paretune = [sys.executable, "-m", "paretune"]
    done = subprocess.run(
        [*paretune, "plan", *words, "--measure", "--json"], check=True, stdout=subprocess.PIPE, text=True
    )
    plan, peak = json.loads(done.stdout), 0
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        with subprocess.Popen([*paretune, "run", *words, "--out", str(out), "--quiet"]) as run:
            while run.poll() is None:
                peak = max(peak, *(size(pid, "status", "VmHWM:") for pid in tree(run.pid)))
                time.sleep(0.5)
        if run.returncode:
            sys.exit(run.returncode)
        files = out.glob("round-*/experts/*/metrics.jsonl")
        rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    seconds, planned = sum(row["seconds"] for row in rows), 3600 * plan["measured"]["hours"]["mapreduce"]
    memory = {"formulas": plan["estimate"]["memory_gb"], "steps": plan["measured"]["gigabytes"]}
    print(json.dumps({
        "recipe": args.recipe, "sets": args.sets, "memory_gb": round(peak / 1e9, 2),
        "planned_memory_gb": {name: round(value, 2) for name, value in memory.items()},
        "memory_ratio": {name: round(peak / 1e9 / value, 3) for name, value in memory.items()},
        "training_seconds": round(seconds, 1), "planned_training_seconds": round(planned, 1),
        "seconds_ratio": round(seconds / planned, 3),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
