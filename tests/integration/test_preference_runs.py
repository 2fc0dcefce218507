"""Whole runs of preference objectives: every system trains two rounds, in one run of an expert each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from paretune import run as runs
from paretune.recipes import load_config
from paretune.records.read import read_metrics
from paretune.training.preferences.presets import PRESETS
from tests.conftest import tiny_recipe
from tests.executing import InThisProcess
from tests.preference_files import CAPTIONS, make_pictures, write_records


def _captioned(folder: Path) -> Path:
    names = make_pictures(folder, 8)
    return write_records(folder / "pairs.jsonl", [
        {"prompt": text, "chosen": names[2 * i], "rejected": names[2 * i + 1],
         "captions": [text, CAPTIONS[i - 1]]}
        for i, text in enumerate(CAPTIONS)
    ])  # fmt: skip


def _recipe(folder: Path, pipeline: Path, names: list[str], **changes: object) -> Path:
    """An expert of each objective, all on one reward under other names."""
    path = tiny_recipe(folder, pipeline, methods=["mapreduce"], **changes)
    raw = yaml.safe_load(path.read_text())
    red = raw["rewards"]["red"]
    raw["rewards"] = {f"by_{name}": {**red, "objective": name} for name in names}
    if "sem_dpo" in names:
        raw["rewards"]["by_sem_dpo"]["pairs"] = str(_captioned(folder / "data"))
    raw["objective"] = {"others": {"spo": {"threshold": 0.0}} if "spo" in names else {}}
    raw["evaluate"] = {"prompts": 1, "samples": 1, "steps": 2}
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return path


def _run(path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[dict[str, object]]]:
    """Run a recipe; the metrics of the last round's experts."""
    monkeypatch.setattr(runs, "open_executor", InThisProcess)
    config = load_config(path)
    runs.run(config, out, lambda event: None)
    found = {name: read_metrics(out / "round-2" / "experts" / name / "metrics.jsonl")
             for name in config.rewards}  # fmt: skip
    assert all(len(rows) == 2 and rows[0]["grad_norm"] > 0 for rows in found.values())
    return found


def test_every_system_of_pictures_trains_two_rounds(
    tiny_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [name for name, preset in PRESETS.items() if preset.cells != "frames"]
    assert len(names) == 20
    found = _run(_recipe(tmp_path, tiny_sd3, names), tmp_path / "run", monkeypatch)
    for name in names:  # the second round begins at its own parent, which is its reference
        if PRESETS[name].reference:
            assert found[f"by_{name}"][0]["w_diff"] == 0, name
    diagnostics = json.loads((tmp_path / "run" / "round-2" / "merged" / "diagnostics.json").read_text())
    assert len(diagnostics["cosines"]) == 20
