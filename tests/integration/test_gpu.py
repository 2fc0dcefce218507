"""Whole runs on a GPU, by `pytest -m gpu`. `pytest -m slow` does the same on the CPU, to try the tests."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from paretune.adapters.store import WEIGHTS
from tests.conftest import tiny_recipe

from .commands import command

DEVICES = [pytest.param("cpu", marks=pytest.mark.slow), pytest.param("cuda", marks=pytest.mark.gpu)]


def run(recipe: Path, out: Path, device: str, *sets: str) -> dict[str, torch.Tensor]:
    """The final adapter. The command starts as a user's: a process that has used CUDA cannot be forked."""
    words = [word for one in (f"executor.device={device}", *sets) for word in ("--set", one)]
    done = subprocess.run(
        command("run", recipe, "--out", out, "--quiet", *words), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "environment.json").read_text())["device"] == device
    return load_file(out / "final" / WEIGHTS)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("objective", ["nft", "flow_grpo", "diffusion_dpo"])
def test_two_experts_share_a_device(device: str, objective: str, tiny_sd3: Path, tmp_path: Path) -> None:
    """Two workers train side by side on it, and give what one after the other gives."""
    recipe = tiny_recipe(
        tmp_path, tiny_sd3, rounds=1, methods=["mapreduce"], evaluate={"prompts": 1},
        objective={"name": objective},
    )  # fmt: skip
    one = run(recipe, tmp_path / "one", device, "executor.workers=1")
    two = run(recipe, tmp_path / "two", device, "executor.workers=2")
    for name, tensor in one.items():
        # Sums on a GPU may be in another order each time.
        tolerance = 0.0 if device == "cpu" else 1e-4
        torch.testing.assert_close(two[name], tensor, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("device", DEVICES)
def test_a_device_gives_what_the_cpu_gives(device: str, tiny_sd3: Path, tmp_path: Path) -> None:
    """Noise is drawn on the CPU for every device, so that only rounding differs."""
    recipe = tiny_recipe(
        tmp_path, tiny_sd3, rounds=1, methods=["mapreduce"], evaluate={"prompts": 1}, train={"epochs": 1},
    )  # fmt: skip
    here = run(recipe, tmp_path / "cpu", "cpu", "executor.workers=1")
    there = run(recipe, tmp_path / "device", device, "executor.workers=1")
    for name, tensor in here.items():
        torch.testing.assert_close(there[name], tensor, atol=2e-3, rtol=1e-2)
