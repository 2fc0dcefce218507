"""A whole run that searches its weights: what it measures, and that a kill makes it search only once."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch

from paretune.adapters.read import read_adapter
from paretune.adapters.store import WEIGHTS, save_delta, sum_deltas
from paretune.commands.merge_by_search import merge_by_search
from paretune.models.lora import fold
from paretune.models.sd3.policy import SD3Policy
from paretune.ops.lowrank import LowRank
from paretune.ops.merging import merge_experts
from paretune.planning.methods import build_plan
from paretune.planning.plan import derive_seed
from paretune.recipes import load_config
from paretune.stages.evaluate import draw
from paretune.stages.measure_candidates import SearchJob, means_of, measure_candidates, validation_of
from paretune.types import Prompt
from tests.conftest import tiny_recipe

from .test_run import IN_REDUCE, _run, left


@pytest.mark.slow
def test_a_search_by_validation_prompts_survives_a_kill(tiny_sd3: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(
        tmp_path, tiny_sd3, methods=["mapreduce"], train={"epochs": 1}, evaluate={"prompts": 1},
        reduce={"method": "search", "options": {"divisions": 2, "prompts": 2}},
    )  # fmt: skip
    out = tmp_path / "out"
    # Killed after the first round's search, before its average is finished.
    assert _run(recipe, out, patch=IN_REDUCE).returncode == -signal.SIGKILL
    left(out)
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


def test_a_merge_of_anyones_adapters_takes_the_weights_that_measure_best(
    tiny_sd3: Path, tmp_path: Path
) -> None:
    """One adapter changes next to nothing, the other much."""
    recipe = tiny_recipe(tmp_path, tiny_sd3, methods=["mapreduce"])
    config = load_config(recipe)
    generator = torch.Generator().manual_seed(0)
    for name, size in (("still", 1e-8), ("wild", 30.0)):
        factors = (torch.randn(16, 2, generator=generator) * size, torch.randn(2, 16, generator=generator))
        save_delta(tmp_path / name, {"transformer_blocks.0.attn.to_q": LowRank(*factors)}, "base", {})
    told: list[dict[str, object]] = []
    both = [tmp_path / "still", tmp_path / "wild"]
    done = merge_by_search(both, config, told.append, out=tmp_path / "out", divisions=2, prompts=2)
    assert [event["update"] for event in told] == [1, 2, 3]
    facts = json.loads((tmp_path / "out" / "provenance.json").read_text())
    rows = facts["search"]
    assert [row["weights"] for row in rows] == [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    assert done.weights == max(rows, key=lambda row: row["value"])["weights"]
    assert [i["weight"] for i in facts["inputs"]] == done.weights
    # Each candidate's means are those of a model with its average folded in.
    policy = SD3Policy(config.model, "cpu")
    fold(policy.transformer, sum_deltas([read_adapter(tmp_path / "wild")], [0.5]))
    sets = validation_of(config, 2)
    alone = next(iter(means_of(policy, config, sets, [{}], (), [(1.0,)])))
    assert alone == pytest.approx(rows[1]["means"], abs=1e-5)
    reference = facts["reference_point"]
    for row in rows:
        sides = [row["means"][name] - reference[name] for name in reference]
        assert row["value"] == pytest.approx(sides[0] * sides[1])
    merged = read_adapter(tmp_path / "out")["transformer_blocks.0.attn.to_q"].dense()
    parts = [read_adapter(tmp_path / n)["transformer_blocks.0.attn.to_q"].dense() for n in ("still", "wild")]
    want = sum(w * p for w, p in zip(done.weights, parts, strict=True))
    torch.testing.assert_close(merged, want, atol=1e-5, rtol=1e-5)


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
    job = SearchJob(config, round_, candidates, tmp_path, "model")
    values = measure_candidates(job, lambda _: None, lambda: False, ["cpu"])
    rows = [json.loads(line) for line in (job.folder / "candidates.jsonl").read_text().splitlines()]
    policy = SD3Policy(config.model, "cpu")
    fold(policy.transformer, sum_deltas([parent, merge_experts(deltas, candidates[1]).deltas]))
    prompts = [Prompt("a red circle"), Prompt("two blue squares")]  # the first two of the training set
    images = draw(policy, config, prompts, derive_seed(config.seed, "search", "red"))
    assert rows[1]["means"]["red"] == pytest.approx(float(images[:, 0].mean()), abs=1e-6)
    assert rows[0]["means"] != rows[1]["means"]
    # Asked again, it answers from its rows: nothing that stops it is even asked.
    assert measure_candidates(job, lambda _: None, lambda: True, ["cpu"]) == values
