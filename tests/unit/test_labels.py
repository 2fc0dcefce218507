"""Scorers of one name: their scores are told apart by all that read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from paretune.files import write_json, write_rows
from paretune.planning.methods import build_plan
from paretune.recipes import parse_config
from paretune.records.labels import apart, judges_of, labels
from paretune.report import write_report
from paretune.report.compare import compare_runs
from paretune.report.read import read_run
from paretune.stages.scorers import Scale, recorded
from paretune.stages.summarise import summarise, tables

JUDGE = "contrast (judge of geneval)"
# The held-out set geneval is judged by a reward of the run, contrast: scores far apart on purpose.
SCORERS = [("geneval", "reward", "geneval", 0.5), ("geneval", "judge", "contrast", 0.9),
           ("contrast", "reward", "contrast", 0.1)]  # fmt: skip
NAMES = ("geneval", "contrast")


def rows_of(methods: tuple[str, ...] = ("base", "mapreduce@1")) -> list[dict[str, Any]]:
    return [
        {"method": method, "round": 1 if "@" in method else None, "preference": [0.5, 0.5], "seed": 0,
         "prompt": f"p{i}", "prompt_set": prompt_set, "kind": kind, "reward": name, "value": value + 0.1 * i}
        for method in methods for prompt_set, kind, name, value in SCORERS for i in range(2)
    ]  # fmt: skip


def test_only_what_would_be_taken_for_another_is_renamed() -> None:
    kept = {("a", "reward", "a"), ("b", "reward", "b"), ("a", "judge", "j"), ("a", "untargeted", "u"),
            ("b", "untargeted", "u")}  # fmt: skip
    assert labels(kept) == {}
    assert labels(kept | {("b", "judge", "a")}) == {("b", "judge", "a"): "a (judge of b)"}
    assert labels(kept | {("a", "untargeted", "b")}) == {("a", "untargeted", "b"): "b (untargeted)"}
    assert labels(kept | {("b", "judge", "j")}) == {
        ("a", "judge", "j"): "j (judge of a)", ("b", "judge", "j"): "j (judge of b)"
    }  # fmt: skip


def test_rows_are_renamed_once_and_old_ones_are_rewards() -> None:
    rows = rows_of(("base",))
    told = [row["reward"] for row in apart(rows)]
    assert told == ["geneval", "geneval", JUDGE, JUDGE, "contrast", "contrast"]
    assert apart(apart(rows)) == apart(rows)
    old = [{"method": "base", "reward": "ocr", "prompt": "p", "value": 1.0}]
    assert apart(old) == old
    assert judges_of(apart(rows), {"geneval": "contrast"}) == {"geneval": JUDGE}
    assert judges_of(old, {"ocr": "reader"}) == {"ocr": "reader"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder as one of a version that took both scorers for one left it."""
    scales = [Scale(s, kind, name, 0.0, 1.0, True) for s, kind, name, _ in SCORERS]  # type: ignore[arg-type]
    manifest = {"stage": "evaluation", **recorded(scales)}
    write_json(tmp_path / "evaluation" / "base" / "manifest.json", manifest)
    write_json(tmp_path / "round-1" / "merged" / "diagnostics.json", {"contraction": None, "spread": 1.0})
    write_rows(tmp_path / "evaluation.jsonl", rows_of())
    return tmp_path


def summary_of(run: Path) -> dict[str, Any]:
    rewards = {n: {"reward": f"pictures.{n}", "prompts": "p.txt", "eval_prompts": "e.txt"} for n in NAMES}
    rewards["geneval"]["judge"] = "pictures.contrast"
    config = parse_config({"rounds": 1, "methods": ["mapreduce"], "rewards": rewards}, "recipe")
    return summarise(config, build_plan(config), run, rows_of(), {"total": 1.0})


def test_a_judge_that_is_a_reward_of_the_run_is_not_pooled_with_it(run: Path) -> None:
    told = summary_of(run)
    assert told["methods"]["base"] == pytest.approx({"geneval": 0.55, JUDGE: 0.95, "contrast": 0.15})
    assert told["hypervolume"]["base"] == pytest.approx(0.55 * 0.15)
    assert told["judges"] == {"geneval": JUDGE}
    assert set(told["higher_is_better"]) == {"geneval", JUDGE, "contrast"}
    assert told["ranges"] == {"geneval": [0.0, 1.0], "contrast": [0.0, 1.0]}


def test_eval_compare_and_report_keep_them_apart_in_an_old_folder_too(run: Path) -> None:
    means, _ = tables(apart(rows_of()))
    assert means["base"]["contrast"] == pytest.approx(0.15)
    told = summary_of(run)
    write_json(run / "summary.json", told | {"judges": {"geneval": "contrast"}})
    found = compare_runs([str(run)])
    assert found["judges"] == {"geneval": JUDGE}
    assert found["methods"]["base"]["means"] == pytest.approx(told["methods"]["base"])
    read = read_run(run)
    assert [row["reward"] for row in read.evaluation] == [row["reward"] for row in apart(rows_of())]
    assert any("--resume" in line for line in read.missing)
    (run / "config.yaml").write_text("name: old\n")
    (run / "round-1" / "merged" / "diagnostics.json").unlink()
    write_json(run / "summary.json", told)
    write_rows(run / "evaluation.jsonl", apart(rows_of()))
    assert not any("--resume" in line for line in read_run(run).missing)
    assert JUDGE in write_report(run).read_text()
    assert json.loads((run / "summary.json").read_text()) == told
