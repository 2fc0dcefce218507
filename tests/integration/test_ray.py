"""The executor `ray` on a made-up cluster of two nodes that do not see the run's folder: `local`'s bits."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from paretune.config import ExecutorConfig, RunConfig
from paretune.environment import fingerprint, own_version
from paretune.executors.ray import crew, dispatch
from paretune.executors.ray.driver import RayExecutor
from paretune.executors.ray.worker import Hello
from paretune.planning.methods import build_plan
from paretune.recipes import load_config
from paretune.run import Clock, Stages
from paretune.stages.claim import claim, lock
from paretune.types import ParetuneError, Stopped
from tests.unit.test_executors import Deed, do

pytest.importorskip("ray")

FINAL = "final/adapter_model.safetensors"
Events = list[dict[str, Any]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without CPUs, where the driver is, and two nodes with one CPU each."""
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # a busy machine would starve them
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        for _ in range(2):
            made.add_node(num_cpus=1)
        ray.init(made.address, log_to_driver=False, logging_level="error", configure_logging=False)
        yield made
        ray.shutdown()
        made.shutdown()


def settings(cluster: Any, **keys: Any) -> ExecutorConfig:
    return ExecutorConfig.model_validate({"kind": "ray", "address": cluster.address, "device": "cpu", **keys})


def train(config: RunConfig, out: Path, executor: Any, report: Callable[[dict[str, Any]], None]) -> None:
    """The rounds of a recipe's first method, and final/; without evaluation."""
    plan = build_plan(config)
    claim(config, plan, out, resume=True)
    with lock(out):
        base = fingerprint(config.model.path)
        stages = Stages(config, plan, out, base, executor, report, Clock(out))
        stages.map_and_reduce(plan.methods[0])
        stages.write_final_adapter()


def test_two_nodes_of_which_one_dies_give_the_bits_of_local(
    cluster: Any, recipe: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is shared but the base model: what is in the run's folder came back through Ray."""
    monkeypatch.setattr(dispatch, "sees_root", lambda hand, root: False)
    out, events, killed = tmp_path / "run", Events(), Events()

    def report(event: dict[str, Any]) -> None:
        busy = all(hand.task is not None for hand in executor._crew.hands)
        if "update" in event and busy and not killed:
            killed.append(event)
            cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
            cluster.add_node(num_cpus=1)
        events.append(event)

    with RayExecutor(2, settings(cluster)) as executor:
        train(load_config(recipe), out, executor, report)
    notices = [event["notice"] for event in events if "notice" in event]
    assert sum("goes on from its last checkpoint; on " in notice for notice in notices) == 1, notices
    assert (out / FINAL).read_bytes() == (whole / FINAL).read_bytes()
    for name in ("red", "dark"):
        here, there = (run / f"round-2/experts/{name}" for run in (whole, out))
        files = {path.relative_to(here) for path in here.rglob("*") if path.is_file()}
        assert files == {path.relative_to(there) for path in there.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_one_worker_that_is_stopped_and_goes_on_gives_the_same(
    cluster: Any, recipe: Path, whole: Path, tmp_path: Path
) -> None:
    """Its machine sees the run's folder, which is therefore used directly."""
    out, events = tmp_path / "run", Events()

    def interrupt(event: dict[str, Any]) -> None:
        if event.get("update") == 1 and not events:
            events.append(event)
            signal.raise_signal(signal.SIGINT)

    with RayExecutor(1, settings(cluster)) as executor:
        with pytest.raises(Stopped):
            train(load_config(recipe), out, executor, interrupt)
        assert not (out / FINAL).exists()
        assert len(list(out.glob("round-1/experts/*/checkpoints/epoch-*"))) == 1
        train(load_config(recipe), out, executor, lambda _: None)
    assert (out / FINAL).read_bytes() == (whole / FINAL).read_bytes()


def test_a_task_whose_process_dies_is_tried_again_as_often_as_the_recipe_says(cluster: Any) -> None:
    events = Events()
    with RayExecutor(1, settings(cluster, retries=1)) as executor:
        assert executor.device == "cpu"
        made = executor.map(do, [Deed("a"), Deed("b", devices=2)], events.append)
        assert made == [["a", "cpu"], ["b", "cpu", "cpu"]]
        assert [event for event in events if "notice" not in event] == [{"did": "a"}, {"did": "b"}]
        with pytest.raises(ParetuneError) as caught:
            executor.map(do, [Deed("die")], events.append)
    told = str(caught.value)
    assert told.startswith("doing die: its worker died 2 times, at last on ")
    assert "a worker process died by SIGKILL, perhaps out of memory, while doing die" in told
    assert told.endswith("; resume, or set executor.retries higher")


def test_a_machine_with_another_paretune_is_a_line() -> None:
    with pytest.raises(ParetuneError) as caught:
        crew.Hand(None, None).welcome(Hello("host (node 1)", "0.0.7"))
    assert str(caught.value) == (
        f"host (node 1) has paretune 0.0.7, and this machine has {own_version()}: install the same version "
        "on every machine of the cluster"
    )


@pytest.mark.slow
def test_twelve_experts_whose_nodes_are_killed_in_each_round() -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "scaling.py"
    done = subprocess.run([sys.executable, script, "deaths", "2", "1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["nodes_killed"], found["same_bits"]) == (2, True)
    assert found["tasks_that_went_on"] >= 1
