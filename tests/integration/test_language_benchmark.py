"""The benchmark of losses on preferences: every protocol once, tiny."""

from __future__ import annotations

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from tests.language import language_recipe

TABLE = ("tree_tpo", "cdpo", "tgdpo", "sem_dpo_text", "madpo_text")
FILE = Path(__file__).parents[2] / "benchmarks" / "preferences_language.py"


@pytest.fixture(scope="module")
def benchmark() -> Any:
    spec = spec_from_file_location("preferences_language_benchmark", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("words", "labels"),
    [
        (["table", *(f"--loss={name}" for name in TABLE)], ["table"] * len(TABLE)),
        (["grid", "--betas", "0.5,2", "--rates", "1", "--loss", "list_dpo"],
         ["beta-0.5-rate-1", "beta-2-rate-1"]),
        (["sizes", "--shares", "0.34,1", "--loss", "dpo"], ["base-0.34", "base-1"]),
    ],
)  # fmt: skip
def test_a_protocol(
    benchmark: Any, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], words: list[str], labels: list[str],
) -> None:  # fmt: skip
    recipe = language_recipe(tmp_path, tiny_llama)
    common = ["--recipe", recipe, "--count", "24", "--epochs", "1", "--prompts-per-epoch", "1",
              "--updates", "1", "--prompts", "2", "--out", tmp_path / "out.json"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["benchmark", *words, *map(str, common)])
    benchmark.main()
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["label"] for row in rows] == labels
    trained = [row for row in rows if "skipped" not in row]
    assert all(row[where]["gain"]["count"] == 2 for row in trained for where in ("in", "out"))
    if words[0] == "table":
        assert (rows[0]["feedback"], rows[0]["level"], rows[0]["framework"]) == ("list", "step", "offline")
        assert len(trained) == len(TABLE)
        assert all(row["in"]["kl"]["value"] >= 0 for row in rows)
        collapse = "change of a token's log-probability, rejected"
        assert all(row["data"][collapse]["count"] == 2 for row in rows)
    else:
        assert len(trained) == 2
    if words[0] == "grid":
        told = capsys.readouterr().out
        assert "list_dpo (in): best" in told
        assert "feedback pair: median gain" in told


def test_all_losses_have_a_place_in_the_survey(benchmark: Any) -> None:
    own = benchmark.list_losses()
    for loss in benchmark.LOSSES:
        feedback, level, _ = own[loss].dimensions if loss in own else benchmark.DIMENSIONS[loss]
        assert feedback in {"point", "pair", "list"}, loss
        assert level in {"token", "step", "sentence", "turn"}, loss
