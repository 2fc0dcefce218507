"""The README's own reward works as printed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from paretune.rewards.base import load_reward, oriented, score_samples
from paretune.types import Prompt

ROOT = Path(__file__).parent.parent.parent


def test_the_reward_in_the_readme_is_the_example_and_scores() -> None:
    example = (ROOT / "examples" / "my_reward.py").read_text()
    code = (ROOT / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert example.endswith(code)
    assert len(code.strip().splitlines()) <= 10
    reward = load_reward(f"{ROOT / 'examples' / 'my_reward.py'}:Flatness")
    flat = torch.full((1, 3, 8, 8), 0.3)
    halves = torch.cat([torch.zeros(1, 3, 8, 4), torch.ones(1, 3, 8, 4)], dim=3)
    values = score_samples(reward, torch.cat([flat, halves]), [Prompt("a"), Prompt("b")])
    assert values.tolist() == pytest.approx([1.0, 0.0])
    assert oriented(reward, values).tolist() == pytest.approx([-1.0, 0.0])
