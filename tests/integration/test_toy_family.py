"""A model family from outside the package: found by its entry point, planned, and run whole."""

from __future__ import annotations

import json
import os
from importlib import import_module
from pathlib import Path

import pytest

from tests.conftest import tiny_recipe

from .commands import call

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


def test_a_family_from_outside_is_planned_and_runs(
    outside: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    monkeypatch.syspath_prepend(EXAMPLES)
    import_module("toy_family.policy").make_model(model)
    recipe = tiny_recipe(tmp_path / "recipe", model, rounds=1)
    told = call("plan", recipe, "--json", environment=outside)
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["estimate"]["tokens"] == 64 + 16  # 8 x 8 pixels, and text of a small model
    done = call("run", recipe, "--out", tmp_path / "run", "--quiet", environment=outside)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert set(summary["methods"]) >= {"base", "mapreduce"}
    assert (tmp_path / "run" / "final" / "adapter_model.safetensors").exists()


def test_without_its_package_the_family_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "ToyPipeline"}))
    told = call("plan", tiny_recipe(tmp_path / "recipe", tmp_path))
    assert told.returncode == 2
    assert "is a ToyPipeline, which no family here draws" in told.stderr
