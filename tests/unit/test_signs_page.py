"""The page names a reward whose judge fell once, with all models that it happened to."""

from types import SimpleNamespace
from typing import Any

import pytest

from paretune.report import signs


def test_rounds_with_the_same_sign_share_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    falls = {("mapreduce@1", "ocr"), ("mapreduce@2", "ocr"), ("morl_dr", "taste")}

    def changes(summary: Any, rows: Any, method: str, names: list[str]) -> list[Any]:
        assert names in (["ocr", "reader"], ["taste", "taste_judge"])
        judge = "worse" if (method, names[0]) in falls else "better"
        return [SimpleNamespace(verdict=v, absolute=x) for v, x in (("better", 0.1), (judge, -0.2))]

    monkeypatch.setattr(signs, "changes", changes)
    methods = ["base", "morl_dr", "mapreduce@1", "mapreduce@2"]
    judges = {"ocr": "reader", "taste": "taste_judge"}
    run: Any = SimpleNamespace(
        summary={"judges": judges, "methods": methods}, evaluation=[], metrics={}, rewards=list(judges)
    )
    assert signs.warnings(run) == [
        "Sign of hacking: MapReduce, round 1: ocr got better (+0.100) and its judge reader worse (−0.200); "
        "the same in: MapReduce, round 2.",
        "Sign of hacking: MORL-DR: taste got better (+0.100) and its judge taste_judge worse (−0.200).",
    ]
