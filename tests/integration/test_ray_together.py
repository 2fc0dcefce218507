"""One expert on two machines by Ray, each with one CPU: the bits of two processes of one machine."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from paretune.config import RunConfig
from paretune.executors.local import LocalExecutor
from paretune.executors.ray import dispatch
from paretune.executors.ray.driver import RayExecutor
from paretune.recipes import load_config
from paretune.types import Stopped
from tests.conftest import tiny_recipe

from .test_ray import FINAL, Events, cluster, settings, train

pytest.importorskip("ray")
__all__ = ["cluster"]
pytestmark = pytest.mark.slow
DEALT = {"device": "cpu", "devices_per_expert": 2}


@pytest.fixture(scope="module")
def config(tiny_sd3: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    recipe = tiny_recipe(
        tmp_path_factory.mktemp("recipe"), tiny_sd3, rounds=1, executor=DEALT,
        train={"epochs": 5}, methods=["mapreduce"],
    )  # fmt: skip
    return load_config(recipe)


@pytest.fixture(scope="module")
def final(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The adapter of two processes of this machine."""
    out = tmp_path_factory.mktemp("local") / "run"
    with LocalExecutor(1, 1, "cpu") as executor:
        train(config, out, executor, lambda _: None)
    return (out / FINAL).read_bytes()


def free() -> tuple[float, set[str]]:
    """CPUs that nobody has, once there are two, and the states of the placement groups."""
    import ray
    from ray.util.placement_group import placement_group_table

    end = time.monotonic() + 20
    while (cpus := ray.available_resources().get("CPU", 0)) < 2 and time.monotonic() < end:
        time.sleep(0.1)
    return cpus, {group["state"] for group in placement_group_table().values()}


def test_two_machines_give_the_bits_of_one(
    cluster: Any, config: RunConfig, final: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "sees_root", lambda hand, root: False)
    out, events = tmp_path / "run", Events()
    with RayExecutor(1, settings(cluster, **DEALT)) as executor:
        train(config, out, executor, events.append)
        assert free() == (2, {"REMOVED"})  # though the executor's block has not ended
    assert (out / FINAL).read_bytes() == final
    assert not any("meeting" in event for event in events)


def test_two_machines_that_stop_and_of_which_one_dies_give_the_same(
    cluster: Any, config: RunConfig, final: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after an epoch, then a machine dies while it goes on. The machines are given back each time."""
    monkeypatch.setattr(dispatch, "sees_root", lambda hand, root: False)
    out, events = tmp_path / "run", Events()

    def interrupt(event: dict[str, Any]) -> None:
        if "update" in event and not events:
            events.append(event)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Stopped), RayExecutor(1, settings(cluster, **DEALT)) as executor:
        train(config, out, executor, interrupt)
    assert free() == (2, {"REMOVED"})
    assert len(list(out.glob("round-1/experts/*/checkpoints/epoch-*"))) == 1
    events.clear()
    slow = Path(config.rewards["red"].prompts).with_name("slow")
    slow.write_text("5")  # a worker notices only after seconds that its machine is gone

    def kill(event: dict[str, Any]) -> None:
        if "update" in event and slow.exists():
            cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
            cluster.add_node(num_cpus=1)
            slow.unlink()
        events.append(event)

    with RayExecutor(1, settings(cluster, **DEALT)) as executor:
        train(config, out, executor, kill)
    assert (out / FINAL).read_bytes() == final
    assert sum("goes on from its last checkpoint; on " in e.get("notice", "") for e in events) == 1
