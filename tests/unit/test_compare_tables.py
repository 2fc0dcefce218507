"""Pages of results have the tables that their command makes of the measured runs."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tables() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "benchmarks/compare_tables.py"), run_name="not main")


EXPERTS = [f"expert:{name}" for name in ("positivity", "reading_ease", "brevity", "instructions")]
MAPREDUCE = ["mapreduce@1", "mapreduce@2", "mapreduce@3", "mapreduce"]


@pytest.mark.parametrize(
    ("file", "methods"),
    [
        ("smollm2", ["base", "rewarded_soup", "morl_dr", "morl_d", *MAPREDUCE]),
        ("smollm2-experts", EXPERTS),
        ("smollm2-dpo", [*EXPERTS, "rewarded_soup"]),
        ("smollm2-dpo-tokens", [*(f"rate:{name[7:]}" for name in EXPERTS), "rate"]),
        ("smollm2-k2", ["mapreduce@1", "mapreduce"]),
        ("assistant-steps", ["base", *(f"{form} mapreduce" for form in ("exact", "search", "slerp"))]),
        ("clips-samples", ["base", "rewarded_soup", "mapreduce", "morl_dr"]),
        ("tokens-told", []),
        ("pictures-distil", []),
        ("pictures-distil-weighted", ["mapreduce"]),
        ("pictures-distil-two", []),
    ],
)
def test_the_page_has_the_tables(tables: dict[str, Any], file: str, methods: list[str]) -> None:
    compared = json.loads((ROOT / f"benchmarks/measured/{file}.json").read_text())
    assert set(methods) <= set(compared["methods"])
    page = (ROOT / f"docs/results/{file.partition('-')[0]}.md").read_text().splitlines()
    made = [*tables["means"](compared, methods), *tables["gains"](compared, methods)]
    assert [line for line in made if line not in page] == []


def test_numbers_and_errors(tables: dict[str, Any]) -> None:
    assert [tables["number"](value) for value in (0.446, 1.0, -0.084)] == [".446", "1.000", "−.084"]
    assert [tables["number"](value, "+") for value in (0.15, -0.5, 32.1)] == ["+.150", "−.500", "+32.100"]
    told = [tables["with_error"](*pair) for pair in ((62.09, 3.047), (1.0, 0.0), (0.83, 4.23, "+"))]
    assert told == ["62.1 ± 3.0", "1.000 ± .000", "+.8 ± 4.2"]
    rising, falling = {"mean": 0.2, "stderr": 0.1}, {"mean": -0.3, "stderr": 0.1}
    told = [tables["_gain"](found, cost) for found in (rising, falling) for cost in (False, True)]
    assert told == ["**+.200 ± .100**", "+.200 ± .100 ↓", "−.300 ± .100 ↓", "**−.300 ± .100**"]
    assert tables["_gain"]({"mean": 0.1, "stderr": 0.1}, False) == "+.100 ± .100"


def test_a_judge_stands_after_its_reward(tables: dict[str, Any]) -> None:
    method = {
        "means": {"a": 0.5, "j": 0.25}, "stderr": {"a": 0.1, "j": 0.2}, "hypervolume": 0.2, "margin": 0.1,
        "margin_stderr": 0.05, "gains": {},
    }  # fmt: skip
    compared = {"rewards": ["a"], "judges": {"a": "j"}, "against": "b", "methods": {"m": method, "b": method}}
    assert tables["means"](compared, []) == [
        "| model | a | judge: j | hypervolume | less b's |",
        "|---|---|---|---|---|",
        "| m | .500 ± .100 | .250 ± .200 | .200 | +.100 ± .050 |",
        "| b | .500 ± .100 | .250 ± .200 | .200 |  |",
    ]
