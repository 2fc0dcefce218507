"""Tokens of many rewards, which are measured together at the rewards' weights."""

from __future__ import annotations

import pytest

from paretune.config import RunConfig
from paretune.recipes import parse_config
from paretune.stages.subjects import check_together
from paretune.types import ParetuneError


def recipe(*weights: float, **changes: object) -> RunConfig:
    own = {"reward": "pictures.ocr", "prompts": "p", "eval_prompts": "q"}
    rewards = {f"r{i}": {**own, "weight": weight} for i, weight in enumerate(weights)}
    return parse_config({"rewards": rewards, "tokens": {}, **changes}, "x")


def test_at_most_six_tokens_may_be_between_absent_and_present() -> None:
    check_together(recipe(*[1.0] * 12))
    check_together(recipe(*[1.0] * 6, 2.0, 0.0))
    check_together(recipe(*[1.0] * 7, 2.0, tokens=None))
    with pytest.raises(ParetuneError, match="at most 6 of them may have a weight between 0 and the largest"):
        check_together(recipe(*[1.0] * 7, 2.0))
