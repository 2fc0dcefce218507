"""What the user reads while a run works."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from paretune.cli.progress import Bars, make_progress

REDUCED = {
    "stage": "reduce", "method": "mapreduce", "round": 2, "cosines": [0.1234, -0.5], "spread": 9.876,
    "contraction": 0.95,
}  # fmt: skip


def _shown(*events: dict[str, object]) -> str:
    console = Console(file=io.StringIO(), width=200)
    with Bars(console) as bars:
        for event in events:
            bars(event)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_reduce_tells_how_the_experts_agreed() -> None:
    line = "mapreduce, reduce round 2  cosines of the experts +0.12, -0.50; spread 9.88, contraction 0.95"
    assert _shown(REDUCED).strip() == line
    assert "contraction" not in _shown({**REDUCED, "contraction": None})


def test_a_bar_an_expert_with_its_step_and_reward() -> None:
    told = _shown(
        {"stage": "map", "method": "mapreduce", "round": 1},
        {"folder": "round-1/experts/ocr", "epochs": 4, "update": 3, "reward": 0.4567},
    )
    assert "mapreduce, map round 1" in told
    assert "round-1/experts/ocr" in told
    assert "3/4" in told
    assert "reward 0.457" in told


def test_quiet_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    make_progress(Console(), quiet=True, as_json=True)(REDUCED)
    assert capsys.readouterr().out == ""
    make_progress(Console(), quiet=False, as_json=True)(REDUCED)
    assert json.loads(capsys.readouterr().out) == REDUCED
