"""One of the processes of an expert that is dealt over several is killed under Ray; its machine lives on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paretune.config import RunConfig
from paretune.executors.ray import dispatch
from paretune.executors.ray.driver import RayExecutor

from .test_ray import FINAL, Events, cluster, settings, train
from .test_ray_together import DEALT, config, final, free

pytest.importorskip("ray")
pytestmark = pytest.mark.slow
__all__ = ["cluster", "config", "final"]


def processes(parent: int) -> list[int]:
    """The processes that one has started with Python's own `spawn`, the oldest first."""
    found = list[int]()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            own = int((place / "stat").read_text().rpartition(")")[2].split()[1]) == parent
            if own and b"spawn_main" in (place / "cmdline").read_bytes():
                found.append(int(place.name))
        except OSError:  # it has ended
            continue
    return sorted(found)


def kill(executor: RayExecutor, rank: int) -> None:
    """Kill the process that trains as a rank. Those of a machine are children of its worker's process."""
    import ray

    (leader,) = executor._crew.hands
    worker = leader.members[rank] if leader.peers else leader
    (above,) = processes(ray.get(worker.actor.__ray_call__.remote(lambda self: os.getpid())))
    os.kill(processes(above)[0 if leader.peers else rank], signal.SIGKILL)


@pytest.fixture
def one_machine(cluster: Any, request: pytest.FixtureRequest) -> Iterator[bool]:
    """Whether a machine of the cluster holds both processes."""
    node = cluster.add_node(num_cpus=2) if request.param else None
    yield request.param
    if node is not None:
        cluster.remove_node(node)


@pytest.mark.parametrize(
    ("one_machine", "rank"), [(False, 0), (False, 1), (True, 1)], indirect=["one_machine"]
)
def test_a_killed_rank_goes_on_from_the_last_checkpoint(
    cluster: Any, config: RunConfig, final: bytes, one_machine: bool, rank: int, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The same bits; the first epoch is not done again."""
    monkeypatch.setattr(dispatch, "sees_root", lambda hand, root: False)
    out, events = tmp_path / "run", Events()

    def report(event: dict[str, Any]) -> None:
        events.append(event)
        if event.get("update") == 2 and sum(e.get("update") == 2 for e in events) == 1:
            kill(executor, rank)

    with RayExecutor(1, settings(cluster, **DEALT)) as executor:
        train(config, out, executor, report)
    told = [event["notice"] for event in events if "notice" in event]
    (notice,) = (line for line in told if "goes on from its last checkpoint; on " in line)
    assert "died by SIGKILL, perhaps out of memory" in notice
    assert (out / FINAL).read_bytes() == final
    assert [event["update"] for event in events if "update" in event].count(1) == 2  # of two experts
    assert free()[0] >= 2
