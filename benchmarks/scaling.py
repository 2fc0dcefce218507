"""Measure the executor `ray`: two workers beside one, its overhead beside `local`, a run whose nodes die.

    python benchmarks/scaling.py workers [EXPERTS [EPOCHS]]
                                             three experts on two Ray workers, and on one: a round's wall time
    python benchmarks/scaling.py overhead    a round of a short quickstart by `local` and by `ray`, one worker
    python benchmarks/scaling.py deaths [NODES WORKERS]
                                             12 experts on 4 nodes of 2 workers, a node killed in each round

All nodes are made on this machine by `ray.cluster_utils.Cluster`, and none may use the run's folder. Workers
start before the clock does. Each part prints one JSON object and exits with 1 if two adapters that must be
equal differ in a bit; `least` in it is the share of the time that two workers need at least, as no expert is
divided: ceil(N / 2) / N of N equal ones. The seconds mean something on a machine that does nothing else.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from paretune.config import ExecutorConfig, RunConfig
from paretune.environment import fingerprint
from paretune.executors.local import LocalExecutor
from paretune.executors.ray import dispatch
from paretune.executors.ray.driver import RayExecutor
from paretune.models.detect import resolve_path
from paretune.planning.methods import build_plan
from paretune.recipes import find_recipe, load_config
from paretune.run import Clock, Stages
from paretune.stages.claim import claim, lock

Event = dict[str, Any]
SHORT = ["methods=[mapreduce]", "rounds=1", "train.epochs=6"]


@dataclass(frozen=True)
class Ready:
    """A task that does nothing: when it has ended, its worker has started."""

    title: str = "starting"
    devices: int = 1


def ready(task: Ready, report: object, should_stop: object, devices: object) -> int:
    """The function of `Ready`: it imports what experts need."""
    import_module("paretune.training.expert")
    time.sleep(2)  # so that each worker gets one
    return os.getpid()


@contextmanager
def cluster(nodes: int, cpus: int) -> Iterator[Any]:
    """A cluster whose head has no CPUs. The machines are made to not see the run's folder."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(nodes):
        made.add_node(num_cpus=cpus)
    ray.init(made.address, log_to_driver=False, logging_level="error", configure_logging=False)
    sees, dispatch.sees_root = dispatch.sees_root, lambda hand, root: False
    try:
        yield made
    finally:
        dispatch.sees_root = sees
        ray.shutdown()
        made.shutdown()


def on_ray(workers: int) -> RayExecutor:
    """The executor on the cluster that this process is connected to."""
    return RayExecutor(workers, ExecutorConfig(kind="ray", device="cpu", retries=100))


def train(
    config: RunConfig, out: Path, executor: Any, workers: int, report: Callable[[Event], object] = dict
) -> float:
    """Train the rounds of the recipe's one method in `out`; the seconds, without the start of the workers."""
    plan = build_plan(config)
    claim(config, plan, out, resume=False)
    with lock(out), executor:
        executor.map(ready, [Ready()] * workers, lambda _: None)
        base = fingerprint(resolve_path(config.model.path))
        stages = Stages(config, plan, out, base, executor, report, Clock(out))
        start = time.perf_counter()
        stages.map_and_reduce(plan.methods[0])
        seconds = time.perf_counter() - start
        stages.write_final_adapter()
    return seconds


def final(out: Path) -> bytes:
    """The bytes of a run's adapter."""
    return (out / "final" / "adapter_model.safetensors").read_bytes()


def workers(place: Path) -> dict[str, Any]:
    """Some experts on one and on two workers. More than three: the recipe's rewards again, by other names."""
    experts, epochs = [*map(int, sys.argv[2:]), *(3, 6)[len(sys.argv) - 2 :]]
    config = load_config(find_recipe("quickstart"), [*SHORT, f"train.epochs={epochs}"])
    own = list(config.rewards.items())
    names = [own[i % 3][0] + (f"-{i // 3}" if i > 2 else "") for i in range(experts)]
    rewards = {name: own[i % 3][1] for i, name in enumerate(names)}
    config = config.model_copy(update={"rewards": rewards})
    with cluster(nodes=2, cpus=1):
        one = train(config, place / "one", on_ray(1), 1)
        two = train(config, place / "two", on_ray(2), 2)
    same = final(place / "one") == final(place / "two")
    return {
        "experts": experts, "one": round(one, 1), "two": round(two, 1), "share": round(two / one, 3),
        "least": round(-(-experts // 2) / experts, 3), "same_bits": same,
    }  # fmt: skip


def overhead(place: Path) -> dict[str, Any]:
    """One worker of each kind, by turns, twice each; the lesser time of each counts."""
    config = load_config(find_recipe("quickstart"), SHORT)
    times: dict[str, list[float]] = {"local": [], "ray": []}
    with cluster(nodes=1, cpus=1):
        for turn in range(2):
            times["local"].append(train(config, place / f"local-{turn}", LocalExecutor(1, 1, "cpu"), 1))
            times["ray"].append(train(config, place / f"ray-{turn}", on_ray(1), 1))
    local, by_ray = min(times["local"]), min(times["ray"])
    same = final(place / "local-0") == final(place / "ray-0")
    seconds = {name: [round(t, 1) for t in values] for name, values in times.items()}
    return {"seconds": seconds, "overhead": round(by_ray / local - 1, 4), "same_bits": same}


def many(rounds: int) -> RunConfig:
    """A short recipe of 12 experts: the three rewards of the smoke recipe, four times."""
    config = load_config(find_recipe("smoke"), ["methods=[mapreduce]", f"rounds={rounds}", "train.epochs=2"])
    rewards = {f"{name}-{i}": own for i in range(4) for name, own in config.rewards.items()}
    return config.model_copy(update={"rewards": rewards})


def deaths(place: Path) -> dict[str, Any]:
    """In each round, when the first expert has an epoch done, a node is killed and another one joins."""
    config, killed, notices = many(rounds=2), set[int](), list[str]()
    undisturbed = place / "undisturbed"
    nodes, each = map(int, sys.argv[2:4] or (4, 2))
    with cluster(nodes, each) as made:
        train(config, undisturbed, on_ray(nodes * each), nodes * each)

        def kill(event: Event) -> None:
            notices.extend([event["notice"]] if "notice" in event else [])
            if "update" not in event:
                return
            number = int(event["folder"].split("/")[0].removeprefix("round-"))
            if number not in killed:
                killed.add(number)
                made.remove_node(next(iter(made.worker_nodes)), allow_graceful=False)
                made.add_node(num_cpus=each)

        train(config, place / "killed", on_ray(nodes * each), nodes * each, kill)
    same = final(undisturbed) == final(place / "killed")
    gone = [notice for notice in notices if "goes on" in notice]
    return {
        "experts": 12, "workers": nodes * each, "nodes_killed": len(killed), "tasks_that_went_on": len(gone),
        "same_bits": same,
    }  # fmt: skip


def main() -> None:
    """Run the part that the command line names."""
    parts: dict[str, Callable[[Path], dict[str, Any]]] = {
        "workers": workers, "overhead": overhead, "deaths": deaths,
    }  # fmt: skip
    numbers = len(sys.argv) - 2
    if numbers not in (0, 1, 2) or sys.argv[1] not in parts or (numbers == 1 and sys.argv[1] != "workers"):
        sys.exit(f"give one of {', '.join(parts)}")
    with tempfile.TemporaryDirectory() as place:
        found = parts[sys.argv[1]](Path(place))
    print(json.dumps(found))
    if not found["same_bits"]:
        sys.exit(1)


if __name__ == "__main__":
    # Workers import the functions of their tasks by the name of this file.
    import_module("scaling").main()
