"""Runs whose experts lean and whose steps are chosen: what they leave, and that a stop changes no bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from paretune.adapters.store import WEIGHTS, load_delta
from paretune.ops.outer import STEPS
from paretune.planning.methods import build_plan
from paretune.recipes import load_config
from paretune.stages.map import MapJob, train_expert
from tests.conftest import tiny_recipe
from tests.here import run_here, stop_at
from tests.language import language_recipe

FINAL = Path("final") / WEIGHTS


@pytest.mark.slow
def test_leaning_experts_and_chosen_steps_survive_a_stop_in_every_stage(
    tiny_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(
        tmp_path, tiny_sd3, methods=["mapreduce"], map={"lean": 0.5}, evaluate={"prompts": 1},
        reduce={"step": "search", "momentum": 0.5, "prompts": 2}, train={"learning_rate": 0.02},
    )  # fmt: skip
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    summary = run_here(recipe, whole, monkeypatch, page=True)
    # 2 rounds of 2 experts of 2 epochs of 2 x 3 samples; 2 rounds of 5 steps on 2 prompts of 2 rewards.
    assert summary["budget"]["mapreduce"] == 48 + 2 * 5 * 4
    assert [line.split()[0] for line in summary["described"]] == ["MapReduce's", "MapReduce"]
    page = (whole / "report.html").read_text()
    assert "lean on each other" in page
    assert "MapReduce folds the average of its experts the best of" in page
    for number in (1, 2):
        facts = json.loads((whole / f"round-{number}" / "merged" / "diagnostics.json").read_text())
        best = max(facts["steps"], key=lambda row: (row["value"], -abs(row["step"] - 1)))
        assert facts["step"] == best["step"]
        rows = (whole / f"round-{number}" / "steps" / "candidates.jsonl").read_text().splitlines()
        assert [json.loads(row)["weights"] for row in rows] == [[step] for step in STEPS]
        direction = load_delta([whole / f"round-{number}" / "direction"])
        for name, delta in load_delta([whole / f"round-{number}" / "merged"]).items():
            assert delta.dense().allclose(facts["step"] * direction[name].dense(), atol=1e-6)

    stop_at(recipe, cut, monkeypatch, "round-1/experts/dark", 1)  # within training
    stop_at(recipe, cut, monkeypatch, "round-1/steps", 3)  # within the choice of a step
    stop_at(recipe, cut, monkeypatch, "round-2/steps", 5)  # after it, before the average is written
    stop_at(recipe, cut, monkeypatch, "evaluation/base", 1)  # all is merged
    assert (cut / FINAL).read_bytes() == (whole / FINAL).read_bytes()
    for number in (1, 2):
        for file in ("merged/diagnostics.json", "steps/candidates.jsonl"):
            found, wanted = (run / f"round-{number}" / file for run in (cut, whole))
            assert found.read_bytes() == wanted.read_bytes()


def test_an_expert_anchored_to_its_own_average(
    tiny_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first update the anchor is the expert itself; then it lags behind, so that the KL is above 0."""
    recipe = tiny_recipe(
        tmp_path, tiny_sd3, methods=["mapreduce"], rounds=1, evaluate={"prompts": 1},
        objective={"anchor": "average", "kl": 0.1}, train={"ema_decay": 0.9, "updates_per_epoch": 1},
    )  # fmt: skip
    stop_at(recipe, tmp_path / "out", monkeypatch, "round-1/experts/dark", 1)
    rows = (tmp_path / "out" / "round-1" / "experts" / "red" / "metrics.jsonl").read_text().splitlines()
    kls = [json.loads(row)["kl"] for row in rows]
    assert kls[0] == 0
    assert kls[1] > 0


def test_a_language_model_s_expert_leans(tiny_llama: Path, tmp_path: Path) -> None:
    """TRL trains it on its own prompts; the metrics tell its own reward; the other one changes the result."""
    weights, rewards = [], []
    for lean in (0.0, 1.0):
        folder = tmp_path / str(lean)
        train = {"prompts_per_epoch": 3, "group_size": 16}  # so that some answers hold the words
        recipe = language_recipe(tmp_path / "recipe", tiny_llama, map={"lean": lean}, train=train)
        config = load_config(recipe)
        task = build_plan(config).methods[0].rounds[0].tasks[0]
        seen: list[dict[str, Any]] = []
        train_expert(MapJob(config, task, folder, "base"), seen.append, lambda: False, ["cpu"])
        weights.append((folder / task.folder / WEIGHTS).read_bytes())
        rewards.append(seen[0]["reward"])
    assert weights[0] != weights[1]
    assert rewards[0] == rewards[1] > 0  # of the first epoch, which both draw from the same model
