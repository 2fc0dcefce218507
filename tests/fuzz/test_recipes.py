"""Any text and any mapping is a valid recipe or one clear line, and a recipe comes back as it was written."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretune.config import RunConfig
from paretune.recipes import count_keys, find_recipe, load_config, parse_config
from paretune.types import ParetuneError

from .profile import long, quick, slow

SMALL = find_recipe("smoke").read_text()
SECTIONS = list(RunConfig.model_fields)
KEYS = sorted({
    key for field in RunConfig.model_fields.values()
    for key in getattr(field.annotation, "model_fields", {})
} | {"reward", "prompts", "eval_prompts", "weight", "judge"})  # fmt: skip
LEAVES: Any = (
    st.none() | st.booleans() | st.integers() | st.sampled_from([10**4000, -1, 0, 2**63, 10**12])
    | st.floats() | st.text(max_size=12) | st.sampled_from(["\0", "\ud800", "1e-4", "no", "n" * 300, "ocr"])
)  # fmt: skip
VALUES: Any = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(KEYS) | st.text(max_size=5) | st.integers(), inner, max_size=4
    ),
    max_leaves=8,
)  # fmt: skip
MAPPINGS = st.dictionaries(st.sampled_from(SECTIONS) | st.text(max_size=5), VALUES, max_size=5)
SETS = st.builds(
    "{}{}={}".format,
    st.sampled_from([f"{s}." for s in SECTIONS] + ["rewards.ocr.", "", "."]),
    st.sampled_from(KEYS + SECTIONS) | st.text(max_size=4),
    LEAVES.filter(lambda v: not isinstance(v, int) or abs(v) < 10**100).map(str)
    | st.text("[]{}:,&*!'\"<-0129eE.~\n\t ab", max_size=20),
)


def one_line(error: ParetuneError) -> None:
    assert "\n" not in str(error)
    assert len(str(error)) < 3000


def whole(raw: dict[str, Any]) -> None:
    """A mapping laid over a recipe that holds."""
    base = load_config(find_recipe("smoke")).model_dump(mode="json")
    try:
        config = parse_config({**base, **raw}, "fuzz")
    except ParetuneError as error:
        one_line(error)
        return
    comes_back(config)


def comes_back(config: RunConfig) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(config.to_yaml(), encoding="utf-8")
        again = load_config(path)
    assert again.model_dump(mode="json") == config.model_dump(mode="json")
    json.dumps(config.model_dump(mode="json"))
    assert all(math.isfinite(weight) for weight in config.weights().values())


def read(folder: Path, text: bytes, *overrides: str) -> None:
    path = folder / "mine.yaml"
    path.write_bytes(text)
    try:
        config = load_config(path, overrides)
    except ParetuneError as error:
        one_line(error)
        return
    comes_back(config)


@st.composite
def damaged(draw: Any) -> bytes:
    """A recipe with some bytes cut out, repeated or put in."""
    text = SMALL.encode()
    for _ in range(draw(st.integers(1, 3))):
        at, length = draw(st.integers(0, len(text))), draw(st.integers(0, 40))
        put = draw(st.binary(max_size=4) | st.sampled_from([b"[", b": ", b"\n", b"&a ", b"*a", b"!!int "]))
        text = text[:at] + put + text[at + length * draw(st.booleans()) :]
    return text


@given(MAPPINGS)
@quick()
def test_mappings(raw: dict[str, Any]) -> None:
    whole(raw)


@given(SETS)
@quick()
def test_sets(tmp_path: Path, item: str) -> None:
    read(tmp_path, SMALL.encode(), item)


@given(damaged() | st.text(max_size=60).map(lambda t: t.encode(errors="replace")) | st.binary(max_size=40))
@quick()
def test_texts(tmp_path: Path, text: bytes) -> None:
    read(tmp_path, text)


@slow
@pytest.mark.parametrize("part", ["mappings", "sets", "texts"])
def test_long(tmp_path: Path, part: str) -> None:
    strategies: dict[str, Any] = {"mappings": MAPPINGS, "sets": SETS, "texts": damaged()}
    checks: dict[str, Any] = {
        "mappings": whole, "sets": lambda item: read(tmp_path, SMALL.encode(), item),
        "texts": lambda text: read(tmp_path, text),
    }  # fmt: skip
    assert count_keys() > 40
    long(4000)(given(strategies[part])(lambda value: checks[part](value)))()
