"""The page on preferences of language models has the tables that its command makes of the measured rows."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/results/language-preferences.md").read_text()
MEASURED = ROOT / "benchmarks/measured"


@pytest.fixture(scope="module")
def tables() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "benchmarks/preference_tables.py"), run_name="not main")


@pytest.mark.parametrize(
    ("form", "files", "rows"), [("survey", "table-?", 25), ("grid", "grid", 8), ("sizes", "sizes", 8)]
)
def test_the_page_has_the_rows(tables: dict[str, Any], form: str, files: str, rows: int) -> None:
    read = [json.loads(file.read_text()) for file in sorted(MEASURED.glob(f"language-{files}.json"))]
    lines = tables[form]([row for file in read for row in file["rows"]])
    made = [line for line in lines[2:] if line.startswith("|")]
    assert len(made) == rows
    assert [line for line in made if line not in PAGE.splitlines()] == []


def test_figures_are_means_and_their_errors_over_seeds(tables: dict[str, Any]) -> None:
    told = [tables["signed"](value) for value in (0.15, -0.084, -17.382, 0.0)]
    assert told == ["+.150", "−.084", "−17.382", "+.000"]
    assert tables["signed"](-10.26, 1) == "−10.3"
    assert tables["figure"]([0.1, 0.3]) == "+.200 ± .100"
    assert tables["figure"]([-3.0, -5.0]) == "−4.000 ± 1.000"
    assert tables["figure"]([0.5]) == "+.500"
