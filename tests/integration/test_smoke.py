"""The shipped smoke recipe, whole: the embedded world, its three rewards and their judges."""

from __future__ import annotations

import json
from pathlib import Path

from .commands import call


def test_the_smoke_recipe(tmp_path: Path) -> None:
    out = tmp_path / "smoke"
    done = call("run", "smoke", "--out", out, "--quiet", drawn=True)
    assert done.returncode == 0, done.stderr
    summary = json.loads((out / "summary.json").read_text())
    scored = {"geneval", "ocr", "preference"}
    assert set(summary["rewards"]) == scored
    assert [r["round"] for r in summary["rounds"]] == [1, 2]
    rows = [json.loads(line) for line in (out / "evaluation.jsonl").read_text().splitlines()]
    assert {r["reward"] for r in rows} == scored | {"vqa", "rapidocr", "preference_judge"}
    assert {r["method"] for r in rows} > {"base", "rewarded_soup", "mapreduce@2", "expert:ocr"}
    assert all(0 <= r["value"] <= 1 for r in rows)
    assert (out / "report.html").stat().st_size > 100_000
