"""Whole runs of preference objectives: every system trains two rounds, in one run of an expert each."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from paretune.planning.methods import build_plan
from paretune.recipes import load_config
from paretune.records.read import read_metrics
from paretune.rewards.process import reward_process
from paretune.run import Clock, Stages
from paretune.stages.claim import claim
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
    path = tiny_recipe(folder, pipeline, methods=["mapreduce"], train={"updates_per_epoch": 1}, **changes)
    raw = yaml.safe_load(path.read_text())
    red = raw["rewards"]["red"]
    raw["rewards"] = {f"by_{name}": {**red, "objective": name} for name in names}
    if "sem_dpo" in names:
        raw["rewards"]["by_sem_dpo"]["pairs"] = str(_captioned(folder / "data"))
    raw["objective"] = {"others": {"spo": {"threshold": 0.0}} if "spo" in names else {}}
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return path


def _run(path: Path, out: Path) -> dict[str, list[dict[str, object]]]:
    """Map and reduce all rounds of a recipe; the metrics of the last round's experts."""
    config = load_config(path)
    plan = build_plan(config)
    claim(config, plan, out, resume=False)
    reward_process().kill()
    stages = Stages(config, plan, out, "model", InThisProcess(), lambda event: None, Clock(out))
    stages.map_and_reduce(plan.methods[0])
    stages.write_final_adapter()
    found = {name: read_metrics(out / "round-2" / "experts" / name / "metrics.jsonl")
             for name in config.rewards}  # fmt: skip
    assert all(len(rows) == 2 and rows[0]["grad_norm"] > 0 for rows in found.values())
    return found


def test_every_system_of_pictures_trains_two_rounds(tiny_sd3: Path, tmp_path: Path) -> None:
    names = [name for name, preset in PRESETS.items() if preset.cells != "frames"]
    assert len(names) == 21
    found = _run(_recipe(tmp_path, tiny_sd3, names), tmp_path / "run")
    for name in names:  # the second round begins at its own parent, which is its reference
        if PRESETS[name].reference:
            assert found[f"by_{name}"][0]["w_diff"] == 0, name
    diagnostics = json.loads((tmp_path / "run" / "round-2" / "merged" / "diagnostics.json").read_text())
    assert len(diagnostics["cosines"]) == 21


def test_the_systems_of_clips_train_two_rounds(tiny_hunyuan: Path, tmp_path: Path) -> None:
    model = {"path": str(tiny_hunyuan), "height": 16, "width": 16, "options": {"frames": 9}}
    path = _recipe(tmp_path, tiny_hunyuan, ["dense_dpo", "diffusion_dpo"], model=model)
    (tmp_path / "rewards.py").write_text(
        "def red(clips, prompts):\n    return clips[:, :, 0].mean((1, 2, 3)) - clips[:, 0, 0].mean((1, 2))\n"
    )
    raw = yaml.safe_load(path.read_text())
    raw["objective"] = {"others": {"dense_dpo": {"segment": 3}}}
    path.write_text(yaml.safe_dump(raw))
    found = _run(path, tmp_path / "run")
    assert found["by_dense_dpo"][0]["w_diff"] == 0
