"""What can be wrong with a cluster is one line before anything begins."""

from __future__ import annotations

import socket
import sys
from typing import Any

import pytest

from paretune.config import ExecutorConfig
from paretune.executors.ray import cluster, placing
from paretune.executors.ray.cluster import connect, device_of
from paretune.executors.ray.network import interface_of
from paretune.executors.ray.placing import Request, one_device, several_devices
from paretune.types import ParetuneError


def node(name: str, **resources: float) -> dict[str, Any]:
    return {"Alive": True, "NodeManagerHostname": name, "Resources": resources}


def settings(**keys: Any) -> ExecutorConfig:
    return ExecutorConfig.model_validate({"kind": "ray", **keys})


def have(monkeypatch: pytest.MonkeyPatch, nodes: list[dict[str, Any]]) -> None:
    for module in (cluster, placing):
        monkeypatch.setattr(module, "machines", lambda: nodes)


@pytest.fixture(autouse=True)
def machines(monkeypatch: pytest.MonkeyPatch) -> None:
    two = [node("small", CPU=2.0), node("large", CPU=8.0, GPU=4.0)]
    have(monkeypatch, two)


def test_devices_are_counted_in_the_cluster() -> None:
    assert device_of(settings()) == "cuda"  # whatever this machine has
    assert device_of(settings(device="cpu")) == "cpu"
    assert one_device(settings(devices_per_expert=2), "cuda") == Request(1, 1)
    assert several_devices(settings(), "cuda") == Request(1, 1)
    assert several_devices(settings(devices_per_expert=2), "cuda") == Request(1, 2, 2)
    assert several_devices(settings(devices_per_expert=2, threads=3), "cpu") == Request(6, 0, 2)
    assert one_device(settings(cpus_per_expert=4), "cuda") == Request(4, 1)
    assert one_device(settings(cpus_per_expert=4, devices_per_expert=3), "cuda") == Request(2, 1)


def test_an_expert_that_no_machine_holds_is_dealt(monkeypatch: pytest.MonkeyPatch) -> None:
    assert several_devices(settings(devices_per_expert=9), "cpu") == Request(1, 0, 9, dealt=True)
    have(monkeypatch, [node("a", CPU=4.0, GPU=2.0), node("b", CPU=3.0, GPU=2.0)])
    dealt = several_devices(settings(devices_per_expert=3, cpus_per_expert=6), "cuda")
    assert (dealt, dealt.workers) == (Request(2, 1, 3, dealt=True), 3)
    with pytest.raises(ParetuneError) as caught:
        several_devices(settings(devices_per_expert=4, cpus_per_expert=8), "cuda")
    assert str(caught.value) == (
        "executor.devices_per_expert: an expert takes 4 times 1 GPU and 2 CPUs, and the cluster has that 3 "
        "times: a 2, b 1"
    )


@pytest.mark.parametrize(
    ("keys", "device", "told"),
    [({"devices_per_expert": 5}, "cuda", "executor.devices_per_expert: an expert takes 5 times 1 GPU and 1 "
      "CPU, and the cluster has that 4 times: small 0, large 4"),
     ({"cpus_per_expert": 9}, "cuda", "executor.cpus_per_expert: one task takes 9 CPUs of one machine, and "
      "the largest machine of the cluster, large, has 8"),
     ({"threads": 9}, "cpu", "executor.threads: one task takes 9 CPUs of one machine, and the largest "
      "machine of the cluster, large, has 8"),
     ({"devices_per_expert": 11}, "cpu", "executor.devices_per_expert: an expert takes 11 times 1 CPU, and "
      "the cluster has that 10 times: small 2, large 8")],
)  # fmt: skip
def test_more_than_the_cluster_has_is_a_line(keys: dict[str, Any], device: str, told: str) -> None:
    with pytest.raises(ParetuneError) as caught:
        several_devices(settings(**keys), device)
    assert str(caught.value) == told


def test_gpus_and_cpus_must_be_of_one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, [node("a", CPU=8.0), node("b", CPU=1.0, GPU=1.0)])
    with pytest.raises(ParetuneError, match="a task takes 1 GPU and 4 CPUs, and no machine of the cluster"):
        one_device(settings(cpus_per_expert=4), "cuda")
    have(monkeypatch, [node("a", CPU=8.0)])
    with pytest.raises(ParetuneError, match="but no machine of the Ray cluster has"):
        device_of(settings(device="cuda"))


def test_the_interface_of_an_address() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.1") is None  # kept for documentation: no machine has it


def test_without_ray_or_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ParetuneError, match=r"executor.address: here is not auto, local, HOST:PORT or ray://HOST:PORT"):
        connect("here")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ParetuneError) as caught:
        connect(f"127.0.0.1:{port}")
    assert str(caught.value).startswith(f"executor.address: nobody answers at 127.0.0.1:{port} (Connection")
    assert "\n" not in str(caught.value)
    with pytest.raises(ParetuneError, match=rf"`ray start --head --ray-client-server-port {port}` there"):
        connect(f"ray://127.0.0.1:{port}")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ParetuneError, match=r'ray needs Ray \(.*\): pip install "paretune\[ray\]"'):
        connect("auto")
