"""A whole run that searches its weights: what it measures, and that a kill makes it search only once."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
import torch

from paretune.methods import build_plan
from paretune.ops.lowrank import LowRank
from paretune.ops.merging import merge_experts
from paretune.plan import derive_seed
from paretune.policies.adapters import fold
from paretune.policies.sd3 import SD3Policy
from paretune.recipes import load_config
from paretune.stages.adapters import WEIGHTS, save_delta, sum_deltas
from paretune.stages.evaluate import draw
from paretune.stages.search import SearchJob, measure_candidates
from paretune.types import Prompt
from tests.conftest import tiny_recipe

from .test_run import IN_REDUCE, _run


def test_a_search_by_validation_prompts_survives_a_kill(tiny_sd3: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(
        tmp_path, tiny_sd3, methods=["mapreduce"], train={"epochs": 1}, evaluate={"prompts": 1},
        reduce={"method": "search", "options": {"divisions": 2, "prompts": 2}},
    )  # fmt: skip
    out = tmp_path / "out"
    # Killed after the first round's search, before its average is finished.
    assert _run(recipe, out, patch=IN_REDUCE).returncode == -signal.SIGKILL
    time.sleep(1.5)  # its workers notice and end
    rows = out / "round-1" / "search" / "candidates.jsonl"
    written = rows.stat().st_mtime_ns
    assert not (out / "round-1" / "merged" / "manifest.json").exists()
    done = _run(recipe, out, "--resume")
    assert done.returncode == 0, done.stderr
    assert rows.stat().st_mtime_ns == written
    for number in (1, 2):
        merged = out / f"round-{number}" / "merged"
        facts = json.loads((merged / "diagnostics.json").read_text())
        assert [c["weights"] for c in facts["search"]] == [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
        best = max(facts["search"], key=lambda c: c["value"])
        assert facts["weights"] == best["weights"]
        assert json.loads((merged / "manifest.json").read_text())["weights"] == best["weights"]
    candidates = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [set(c["means"]) for c in candidates] == [{"red", "dark"}] * 3
    # Value = product of what each mean lies above the reference point, these rewards having no range.
    reference = json.loads(rows.with_name("manifest.json").read_text())["reference_point"]
    for c in candidates:
        sides = [c["means"][name] - reference[name] for name in reference]
        assert c["value"] == pytest.approx(sides[0] * sides[1])
    assert (out / "final" / WEIGHTS).exists()


def test_the_value_is_of_the_average_that_would_be_folded(tiny_sd3: Path, tmp_path: Path) -> None:
    """The means of a candidate are those of a model whose files have its average folded in."""
    recipe = tiny_recipe(
        tmp_path, tiny_sd3, methods=["mapreduce"],
        reduce={"method": "search", "options": {"prompts": 2}},
    )  # fmt: skip
    config = load_config(recipe)
    round_ = build_plan(config).methods[0].rounds[1]
    generator = torch.Generator().manual_seed(0)

    def change() -> dict[str, LowRank]:
        return {"transformer_blocks.0.attn.to_q": LowRank(
            torch.randn(16, 2, generator=generator), torch.randn(2, 16, generator=generator)
        )}  # fmt: skip

    deltas = [change(), change()]
    parent = change()
    for folder, delta in zip([t.folder for t in round_.tasks], deltas, strict=True):
        save_delta(tmp_path / folder, delta, "base", {})
    save_delta(tmp_path / round_.tasks[0].parents[0], parent, "base", {})
    candidates = ((1.0, 0.0), (0.25, 0.75))
    job = SearchJob(config, round_, candidates, tmp_path, "model", "cpu")
    values = measure_candidates(job, lambda _: None, lambda: False)
    rows = [json.loads(line) for line in (job.folder / "candidates.jsonl").read_text().splitlines()]
    policy = SD3Policy(config.model, "cpu")
    fold(policy.transformer, sum_deltas([parent, merge_experts(deltas, candidates[1]).deltas]))
    prompts = [Prompt("a red circle"), Prompt("two blue squares")]  # the first two of the training set
    images = draw(policy, config, prompts, derive_seed(config.seed, "search", "red"))
    assert rows[1]["means"]["red"] == pytest.approx(float(images[:, 0].mean()), abs=1e-6)
    assert rows[0]["means"] != rows[1]["means"]
    # Asked again, it answers from its rows: nothing that stops it is even asked.
    assert measure_candidates(job, lambda _: None, lambda: True) == values
