"""docs/real-rewards.md names every reward of real pictures, with its range, hub id, licence and commit."""

import inspect
import re
from pathlib import Path

import pytest

from paretune.rewards.base import find_reward
from paretune.rewards.pinned import PINNED
from paretune.rewards.table import REWARDS

PAGE = (Path(__file__).parents[2] / "docs" / "real-rewards.md").read_text(encoding="utf-8")
ROWS = {
    found[1]: [cell.strip() for cell in found[2].split("|")]
    for found in re.finditer(r"^\| `(\w+)` \| (.+) \|$", PAGE, re.MULTILINE)
    if found[2].count("|") == 5
}
PHOTO = {name for name, place in REWARDS.items() if ".photo." in place}


def test_every_reward_of_pictures_has_a_row() -> None:
    assert set(ROWS) == PHOTO


@pytest.mark.parametrize("name", sorted(PHOTO))
def test_a_row_tells_range_and_model(name: str) -> None:
    made = find_reward(name)
    _, told, hub, licence, commit, _ = ROWS[name]
    assert licence
    low, high = made.range
    assert told == ("unbounded" if high == float("inf") else f"{low:g}..{high:g}")
    for option, value in inspect.signature(made).parameters.items():
        if isinstance(value.default, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", value.default):
            named = value.default in hub or (option, value.default) in SHARED
            assert named, f"{name}: {option} {value.default}"
    pins = re.findall(r"`([0-9a-f]{8})`", commit)
    assert all(any(pin.startswith(short) for pin in PINNED.values()) for short in pins)


# What a reward has its configuration or tokenizer from, and no weights.
SHARED = {
    ("processor", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"), ("base", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"),
    ("tokenizer", "google-bert/bert-base-uncased"), ("clip", "openai/clip-vit-large-patch14"),
}  # fmt: skip
