"""Whatever a reward returns is B finite scores or one clear line."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from paretune.rewards.base import FunctionReward, score_samples
from paretune.types import ParetuneError, Prompt

from .profile import long, quick, slow

SCALARS: Any = (
    st.floats() | st.integers() | st.booleans() | st.none() | st.text(max_size=3) | st.complex_numbers()
    | st.sampled_from([10**400, b"x", object(), torch.tensor(1.0), torch.ones(2)])
)  # fmt: skip
RETURNED: Any = (
    SCALARS | st.lists(SCALARS, max_size=4) | st.lists(st.floats(), min_size=3, max_size=3)
    | st.dictionaries(st.text(max_size=2), SCALARS, max_size=2) | st.lists(st.lists(st.floats(), max_size=3))
    | st.lists(st.floats(width=32), min_size=3, max_size=3).map(torch.tensor)
    | st.sampled_from([torch.ones(3, dtype=torch.bool), torch.ones(3, 1), torch.ones(3, dtype=torch.int64)])
)  # fmt: skip
PROMPTS = [Prompt("a"), Prompt("b"), Prompt("c")]


def scored(value: Any) -> None:
    reward = FunctionReward(lambda samples, prompts: value, "fuzz")
    told, scores = "", torch.zeros(3)
    try:
        scores = score_samples(reward, torch.zeros(3, 3, 2, 2), PROMPTS)
    except ParetuneError as error:
        told = str(error)
    assert "\n" not in told
    assert scores.shape == (3,)
    assert scores.dtype == torch.float32
    assert torch.isfinite(scores).all()


@given(RETURNED)
@quick()
def test_what_a_reward_returns(value: Any) -> None:
    scored(value)


@slow
def test_long() -> None:
    long(40_000)(given(RETURNED)(scored))()
