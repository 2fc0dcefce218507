"""The benchmark of tokens beside experts: its arithmetic, and one pass over a made-up run."""

from __future__ import annotations

import json
import sys
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from paretune.files import write_rows
from tests.made_run import make_run, make_texts_run, make_texts_tokens, make_tokens

FILE = Path(__file__).parents[2] / "benchmarks" / "tokens.py"


@pytest.fixture(scope="module")
def benchmark() -> Any:
    spec = spec_from_file_location("token_benchmark", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(benchmark: Any, monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["tokens.py", *map(str, words)])
    benchmark.main()


def test_a_row_without_ranks_is_null_and_the_rest_is_pooled(benchmark: Any) -> None:
    assert benchmark.spearman([0.5] * 6) is None
    assert benchmark.spearman([0, 1, 2, 3, 4, 5]) == pytest.approx(1)
    told = benchmark.pooled([{"a": None, "b": [1.0], "c": None}, {"a": 0.5, "b": [3.0], "c": None}])
    assert told == {"a": [0.5, 0.0], "b": [[2.0, 1.0]], "c": None}


def test_a_batch_has_as_many_different_preferences_as_pictures(benchmark: Any) -> None:
    for rewards in (2, 3, 9):
        asked = benchmark.wishes(rewards)
        assert len(set(asked)) == len(asked) == 8
        assert all(sum(p) == pytest.approx(1) and len(p) == rewards for p in asked)
    assert any(max(p) < 1 for p in benchmark.wishes(3))


def test_the_share_of_the_gain_and_the_paired_difference_to_half_of_it(benchmark: Any) -> None:
    def part(token: list[float], expert: list[float]) -> dict[str, Any]:
        return {"ocr": {"prompts": {"base": [0.0, 0.0], "token": token, "expert": expert}}}

    one = benchmark.gains([part([0.3, 0.1], [0.4, 0.4])])["ocr"]
    assert one["share"] == pytest.approx(0.5)
    assert one["beyond_half"] == pytest.approx([0.0, 0.1])  # +.1 and -.1
    both = benchmark.gains([part([0.3, 0.1], [0.4, 0.4]), part([0.3, 0.5], [0.4, 0.4])])["ocr"]
    assert both["share"] == pytest.approx(0.75)
    assert both["beyond_half"] == pytest.approx([0.1, 0.0])
    assert benchmark.gains([part([0.1, 0.1], [0.0, 0.0])])["ocr"]["share"] is None


def test_a_run_without_tokens_is_one_line(
    benchmark: Any, tiny_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with pytest.raises(SystemExit) as left:
        call(benchmark, monkeypatch, make_run(tmp_path / "run", tiny_sd3))
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "has no reward token for red, dark" in line


def test_a_run_is_measured_and_pooled(
    benchmark: Any, tiny_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", tiny_sd3, tokens={"steps": 1})
    make_tokens(run, tiny_sd3)
    write_rows(run / "timing.jsonl", [
        {"phase": phase, "seconds": s} for phase, s in (("map", 7), ("tokens", 2), ("map", 2), ("reduce", 1))
    ])  # fmt: skip
    monkeypatch.setattr(benchmark, "SCALES", (0.0, 1.0))
    monkeypatch.setattr(benchmark, "seconds", partial(benchmark.seconds, repeats=1))
    call(benchmark, monkeypatch, run, "--prompts", 2, "--out", tmp_path / "one.json")
    told = json.loads((tmp_path / "one.json").read_text())
    assert told["training_cost"] == pytest.approx(0.2)
    own, prompts = told["control"]["red"], told["control"]["red"]["prompts"]
    assert own["token"] == pytest.approx([sum(prompts[k]) / 2 for k in ("base", "token")])
    assert own["token"][0] != own["token"][1] != own["expert"][1]
    assert all(value > 0 for value in told["costs"].values())
    call(benchmark, monkeypatch, "--pool", *[tmp_path / "one.json"] * 2, "--out", tmp_path / "all.json")
    pooled = json.loads((tmp_path / "all.json").read_text())
    assert pooled["gains"] == told["gains"]
    assert pooled["training_cost"] == [0.2, 0.0]


def test_a_language_models_run_is_measured(
    benchmark: Any, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_texts_run(tmp_path / "run", tiny_llama, tokens={"steps": 1})
    make_texts_tokens(run)
    monkeypatch.setattr(benchmark, "SCALES", (0.0, 0.5, 1.0))
    monkeypatch.setattr(benchmark, "seconds", partial(benchmark.seconds, repeats=1))
    told = benchmark.measure(run, 2)
    for own in told["control"].values():
        assert len(own["token"]) == len(own["expert"]) == 3
    assert set(told["costs"]) >= {"switch_token", "batch_tokens", "batch_experts"}
    assert told["costs"]["bytes_token"] == 16 * 4
    assert all(value > 0 for value in told["costs"].values())
