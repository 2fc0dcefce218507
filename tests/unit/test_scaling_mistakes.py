"""What can be wrong beyond one GPU: `paretune run` says it in one line and leaves nothing behind."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paretune.executors.ray import cluster, driver, placing
from paretune.rewards.remote.wire import VERSION
from tests.serving import served

from .test_cli import mistake
from .test_ray_cluster import node
from .test_reward_server import Answering, Mean

__all__ = ["mistake"]


@pytest.fixture
def refused(mistake: Any, tmp_path: Path) -> Callable[..., str]:
    """Run the smoke recipe with other settings; the one line that it ends with."""

    def run(*settings: str) -> str:
        told = mistake(*settings)
        assert not (tmp_path / "out").exists()
        return str(told)

    return run


def remote(url: str) -> tuple[str, str]:
    return "rewards.preference.reward=remote", f'rewards.preference.options={{url: "{url}", reward: mean}}'


def test_ray_is_not_installed(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert 'pip install "paretune[ray]"' in refused("executor.kind=ray")


def test_there_is_no_cluster_at_the_address(refused: Callable[..., str]) -> None:
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    told = refused("executor.kind=ray", f"executor.address={address}")
    assert f"executor.address: nobody answers at {address} (" in told


def test_more_devices_than_the_cluster_has(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "connect", lambda address: False)
    for module in (cluster, placing):
        monkeypatch.setattr(module, "machines", lambda: [node("one", CPU=4.0, GPU=2.0), node("two", CPU=4.0)])
    assert refused("executor.kind=ray", "executor.devices_per_expert=3").endswith(
        "executor.devices_per_expert: an expert takes 3 times 1 GPU and 1 CPU, and the cluster has that 2 "
        "times: one 2, two 0"
    )


def test_a_server_of_another_protocol(refused: Callable[..., str], tmp_path: Path) -> None:
    other = {"wrap": lambda app: Answering(app, headers={VERSION: "2"})}
    with served({"mean": Mean()}, tmp_path, **other) as (url, _):  # type: ignore[arg-type]
        told = refused(*remote(url))
    assert "speaks version 2 of the protocol of reward servers, and this paretune version 1" in told


def test_a_wrong_token(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARETUNE_TOKEN", "wrong")
    with served({"mean": Mean()}, tmp_path, token="right") as (url, _):
        told = refused(*remote(url))
    assert "the one in PARETUNE_TOKEN is not the server's" in told


def test_no_server_answers(refused: Callable[..., str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert url in refused(*remote(url))


def test_a_tracker_is_not_installed(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "swanlab", None)
    assert "trackers: swanlab is not installed: pip install swanlab" in refused("trackers=[swanlab]")


