"""A model family from outside the package: found by its entry point, planned, and run whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import tiny_recipe

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples"


@pytest.fixture
def outside(tmp_path: Path) -> dict[str, str]:
    """An environment in which a package that names the family's entry point is installed."""
    facts = tmp_path / "site" / "toy_family-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-family\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[paretune.models]\ntoy = toy_family.family:FAMILY\n")
    paths = [str(tmp_path / "site"), str(EXAMPLES), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def paretune(environment: dict[str, str], *words: object) -> subprocess.CompletedProcess[str]:
    code = "from paretune.cli.app import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        capture_output=True, text=True, timeout=300, env=environment, check=False,
    )  # fmt: skip


def test_a_family_from_outside_is_planned_and_runs(outside: dict[str, str], tmp_path: Path) -> None:
    model = tmp_path / "model"
    make = "import sys, pathlib, toy_family.policy as p; p.make_model(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", make, str(model)], check=True, env=outside)
    recipe = tiny_recipe(tmp_path / "recipe", model, rounds=1)
    told = paretune(outside, "plan", recipe, "--json")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["estimate"]["tokens"] == 64 + 16  # 8 x 8 pixels, and text of a small model
    done = paretune(outside, "run", recipe, "--out", tmp_path / "run", "--quiet")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert set(summary["methods"]) >= {"base", "mapreduce"}
    assert (tmp_path / "run" / "final" / "adapter_model.safetensors").exists()


def test_without_its_package_the_family_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "ToyPipeline"}))
    told = paretune(dict(os.environ), "plan", tiny_recipe(tmp_path / "recipe", tmp_path))
    assert told.returncode == 2
    assert "is a ToyPipeline, which no family here draws" in told.stderr
