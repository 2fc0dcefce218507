"""Damaged adapters are read as what they are or refused in one line, and a merge of them is finite."""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save

from paretune.adapters.inspect import inspect_adapters
from paretune.adapters.merge import merge_adapters
from paretune.types import ParetuneError

from .profile import long, quick, slow

KEY = "base_model.model.blocks.0.to_q.lora_{}.weight"
TENSORS = {KEY.format("A"): torch.ones(2, 4), KEY.format("B"): torch.ones(4, 2)}
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["to_q"], "use_rslora": False}
VALUES: Any = (
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats() | st.text(max_size=4)
    | st.sampled_from([10**400, 1e308, [], {}, ["to_q"], {"to_q": 0}, {"to_q": -1}, {"to_q": "x"}])
)  # fmt: skip
CHANGES = st.dictionaries(
    st.sampled_from([*CONFIG, "rank_pattern", "alpha_pattern", "base_model_name_or_path", "use_dora"]),
    VALUES, max_size=3,
)  # fmt: skip


@st.composite
def weights(draw: Any) -> bytes:
    """A safetensors file, whole, cut, or with another header."""
    data = save(TENSORS)
    kind = draw(st.sampled_from(["whole", "cut", "header", "bytes"]))
    if kind == "cut":
        return data[: draw(st.integers(0, len(data)))]
    if kind == "bytes":
        at = draw(st.integers(0, len(data) - 1))
        return data[:at] + draw(st.binary(min_size=1, max_size=3)) + data[at + 1 :]
    if kind == "header":
        length = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + length])
        name = draw(st.sampled_from(list(TENSORS)))
        field = draw(st.sampled_from(["dtype", "shape", "data_offsets"]))
        header[name][field] = draw(
            st.sampled_from(["F16", "I64", [2, 4], [0, 0], [-1], [10**18], None, [8, 2**63]])
        )
        made = json.dumps(header).encode()
        return struct.pack("<Q", len(made)) + made + data[8 + length :]
    return data


CASES = st.tuples(CHANGES, weights())


def one_line(work: Callable[[], object]) -> None:
    """It ends well, or by one line."""
    told = ""
    try:
        work()
    except ParetuneError as error:
        told = str(error)
    assert "\n" not in told


def handled(case: tuple[dict[str, Any], bytes]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "a"
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps(CONFIG | case[0]))
        (folder / "adapter_model.safetensors").write_bytes(case[1])
        merged = Path(name) / "m"
        for work in (lambda: inspect_adapters([folder]), lambda: merge_adapters([folder], out=merged)):
            one_line(work)
        for file in (Path(name) / "m").glob("*.safetensors"):
            assert all(torch.isfinite(tensor).all() for tensor in load_file(file).values())


@given(CASES)
@quick(25)
def test_damaged_adapters(case: tuple[dict[str, Any], bytes]) -> None:
    handled(case)


@slow
def test_long() -> None:
    long(10_000)(given(CASES)(handled))()
