"""The executor `ray` on a made-up cluster of two nodes that do not see the run's folder: the bits of `local`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paretune.config import ExecutorConfig
from paretune.executors.ray import dispatch
from paretune.executors.ray.driver import RayExecutor
from paretune.recipes import load_config
from paretune.run import run
from paretune.types import ParetuneError
from tests.conftest import tiny_recipe

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without CPUs, where the driver is, and two nodes with one CPU each."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        made.add_node(num_cpus=1)
        made.add_node(num_cpus=1)
        yield made
        ray.shutdown()
        made.shutdown()


def test_two_nodes_with_folders_of_their_own_give_the_bits_of_local(
    cluster: Any, tiny_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paretune.run.write_report", lambda out: None)
    monkeypatch.setattr(dispatch, "sees_root", lambda hand, root: False)
    recipe = tiny_recipe(tmp_path / "recipe", tiny_sd3)
    sets = ["executor.workers=2", "executor.device=cpu", "methods=[mapreduce]"]
    local, away = (load_config(recipe, [*sets, f"executor.kind={k}"]) for k in ("local", "ray"))
    away = away.model_copy(update={"executor": away.executor.model_copy(update={"address": cluster.address})})
    events: list[Any] = []
    first = run(local, tmp_path / "local", lambda _: None)
    second = run(away, tmp_path / "ray", events.append)
    assert first["methods"] == second["methods"]
    final = "final/adapter_model.safetensors"
    assert (tmp_path / "local" / final).read_bytes() == (tmp_path / "ray" / final).read_bytes()
