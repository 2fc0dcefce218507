"""What can be wrong with a cluster is one line before anything begins."""

from __future__ import annotations

import socket
import sys
from typing import Any

import pytest

from paretune.config import ExecutorConfig
from paretune.executors.ray import cluster
from paretune.executors.ray.cluster import Request, connect, device_of, request_of
from paretune.types import ParetuneError


def node(name: str, **resources: float) -> dict[str, Any]:
    return {"Alive": True, "NodeManagerHostname": name, "Resources": resources}


def settings(**keys: Any) -> ExecutorConfig:
    return ExecutorConfig.model_validate({"kind": "ray", **keys})


@pytest.fixture(autouse=True)
def machines(monkeypatch: pytest.MonkeyPatch) -> None:
    two = [node("small", CPU=2.0), node("large", CPU=8.0, GPU=4.0)]
    monkeypatch.setattr(cluster, "machines", lambda: two)


def test_devices_are_counted_in_the_cluster() -> None:
    assert device_of(settings()) == "cuda"  # whatever this machine has
    assert device_of(settings(device="cpu")) == "cpu"
    assert request_of(settings(devices_per_expert=2), "cuda") == Request(1, 2)
    assert request_of(settings(devices_per_expert=2, threads=3), "cpu") == Request(6, 0)
    assert request_of(settings(cpus_per_expert=4), "cuda") == Request(4, 1)


@pytest.mark.parametrize(
    ("keys", "device", "told"),
    [({"devices_per_expert": 5}, "cuda", "executor.devices_per_expert: one task takes 5 GPUs of one machine, "
      "and the largest machine of the cluster, large, has 4"),
     ({"cpus_per_expert": 9}, "cuda", "executor.cpus_per_expert: one task takes 9 CPUs of one machine, and "
      "the largest machine of the cluster, large, has 8"),
     ({"threads": 9}, "cpu", "executor.threads: one task takes 9 CPUs of one machine, and the largest "
      "machine of the cluster, large, has 8"),
     ({"devices_per_expert": 9}, "cpu", "executor.devices_per_expert: one task takes 9 CPUs of one machine, "
      "and the largest machine of the cluster, large, has 8")],
)  # fmt: skip
def test_more_than_a_machine_has_is_a_line(keys: dict[str, Any], device: str, told: str) -> None:
    with pytest.raises(ParetuneError) as caught:
        request_of(settings(**keys), device)
    assert str(caught.value) == told


def test_gpus_and_cpus_must_be_of_one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "machines", lambda: [node("a", CPU=8.0), node("b", CPU=1.0, GPU=1.0)])
    with pytest.raises(ParetuneError, match="a task takes 1 GPUs and 4 CPUs, and no machine of the cluster"):
        request_of(settings(cpus_per_expert=4), "cuda")
    monkeypatch.setattr(cluster, "machines", lambda: [node("a", CPU=8.0)])
    with pytest.raises(ParetuneError, match="but no machine of the Ray cluster has"):
        device_of(settings(device="cuda"))


def test_without_ray_or_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ParetuneError, match=r"executor.address: here is not auto, local, or HOST:PORT"):
        connect("here")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ParetuneError) as caught:
        connect(f"127.0.0.1:{port}")
    assert str(caught.value).startswith(f"executor.address: nobody answers at 127.0.0.1:{port} (Connection")
    assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ParetuneError, match=r'ray needs Ray \(.*\): pip install "paretune\[ray\]"'):
        connect("auto")
