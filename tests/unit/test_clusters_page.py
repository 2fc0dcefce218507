"""docs/clusters.md: its files are what Ray and KubeRay read, and its commands have options that exist.

What runs of it is in tests/integration/test_clusters_page.py.
"""

from __future__ import annotations

import shlex
from typing import Any

import click
import pytest
import typer
import yaml

from paretune.cli.app import app
from tests.clusters_page import block, commands

pytest.importorskip("ray")
RAY = [words for words in commands("ray") if words[:2] != ["ray", "job"]]
PARETUNE = commands("paretune")


def parsed(group: Any, words: list[str]) -> dict[str, Any]:
    """The parameters of a command, which does not run. Raises a UsageError for one that is wrong.

    group: of click, as Ray's is, or of typer, which has a click of its own.
    """
    top = group.make_context(words[0], words[1:])
    name, command, rest = group.resolve_command(top, words[1:])
    assert not hasattr(command, "resolve_command")
    return command.make_context(name, rest, parent=top).params


def started(line: str) -> dict[str, Any]:
    from ray.scripts.scripts import cli

    return parsed(cli, shlex.split(line))


def test_the_page_has_the_commands_that_are_looked_at() -> None:
    assert len(PARETUNE) == 8
    assert {words[1] for words in RAY} == {"start", "stop", "up", "attach", "down", "get-auth-token"}


@pytest.mark.parametrize("words", RAY, ids=" ".join)
def test_commands_of_ray_have_options_that_exist(words: list[str]) -> None:
    from ray.scripts.scripts import cli

    parsed(cli, words)


@pytest.mark.parametrize("words", PARETUNE, ids=" ".join)
def test_commands_of_paretune_have_options_that_exist(words: list[str]) -> None:
    parsed(typer.main.get_command(app), words)


def test_an_option_that_does_not_exist_is_found() -> None:
    with pytest.raises(click.UsageError, match="No such option"):
        started("ray start --heads")


def test_the_file_of_machines_with_ssh_is_one_of_ray() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load(block("yaml", "cluster_name")))
    validate_config(config)  # by ray-schema.json
    kind = config["available_node_types"][config["head_node_type"]]
    assert (kind["min_workers"], kind["max_workers"]) == (2, 2)
    head = started(config["head_start_ray_commands"][-1])
    assert (head["head"], head["port"]) == (True, 6379)
    assert head["autoscaling_config"] == "~/ray_bootstrap_config.yaml"  # where `ray up` puts it
    assert started(config["worker_start_ray_commands"][-1])["address"] == "$RAY_HEAD_IP:6379"


def test_a_file_with_a_wrong_key_is_not() -> None:
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load(block("yaml", "cluster_name").replace("ssh_user", "ssh_name"))
    with pytest.raises(ValidationError, match="'ssh_name' was unexpected"):
        validate_config(prepare_config(config))


def test_the_file_for_kubernetes_is_read_by_ray() -> None:
    """By the autoscaler of KubeRay; and its operator makes options of `ray start` of it, which exist."""
    import ray
    from ray.autoscaler._private.kuberay import autoscaling_config

    made = yaml.safe_load(block("yaml", "RayCluster"))
    made["metadata"]["namespace"] = "default"  # as Kubernetes fills in
    assert made["spec"]["rayVersion"] == ray.__version__
    config = autoscaling_config._derive_autoscaling_config_from_ray_cr(made)
    kinds = config["available_node_types"]
    assert kinds["headgroup"]["resources"] == {"CPU": 0, "memory": 32 * 2**30}
    assert kinds["gpus"]["resources"] == {"CPU": 16, "GPU": 8, "memory": 128 * 2**30}
    assert (kinds["gpus"]["min_workers"], kinds["gpus"]["max_workers"]) == (4, 4)
    for group in (made["spec"]["headGroupSpec"], *made["spec"]["workerGroupSpecs"]):
        params = group["rayStartParams"]
        assert all(isinstance(value, str) for value in params.values())
        given = started("ray start " + " ".join(f"--{name}={value}" for name, value in params.items()))
        assert given["num_cpus"] == (0 if params else None)


def test_the_script_for_slurm_is_one_of_bash_and_gives_its_tasks() -> None:
    lines = block("sh", "#SBATCH").splitlines()
    assert lines[0] == "#!/bin/bash"
    tasks = [shlex.split(line.rstrip("& ")) for line in lines if line.startswith("srun ")]
    assert [next(w for w in task if w in ("ray", "paretune")) for task in tasks] == ["ray", "ray", "paretune"]
    assert [("-x" in task, "-w" in task) for task in tasks] == [(False, True), (True, False), (False, True)]
    assert "--overlap" in tasks[2]  # its task shares the first machine with `ray start`
