"""A reducer that another package adds in one file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from paretune.adapters.merge import read_options
from paretune.adapters.store import load_delta, save_delta
from paretune.ops.lowrank import LowRank
from paretune.ops.merging import merge_experts
from paretune.planning.methods import build_plan
from paretune.recipes import load_config
from paretune.records.manifest import read_manifest, write_manifest
from paretune.stages.reduce import reduce_round
from paretune.types import ParetuneError
from tests.conftest import tiny_recipe
from tests.packages import EXAMPLES, example, install

BROKEN = """
from paretune.ops.lowrank import LowRank
from paretune.ops.merging import Reducer
import torch

def fails(deltas, weights): return 1 / 0
def other(deltas, weights): return LowRank(torch.ones(2, 1), torch.ones(1, 2))
def dense(deltas, weights): return deltas[0].dense()
def lost(deltas, weights): return LowRank(deltas[0].B * float("nan"), deltas[0].A)

FAILS, OTHER, DENSE, LOST = (Reducer(f, "", "") for f in (fails, other, dense, lost))
"""


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["clipped = my_reducer:CLIPPED", "plain = my_reducer:clipped", "gone = my_reducer:NONE"]
    lines += [f"{name} = broken_reducers:{name.upper()}" for name in ("fails", "other", "dense", "lost")]
    files = example("my_reducer") | {"broken_reducers": BROKEN}
    install(tmp_path / "site", monkeypatch, {"paretune.reducers": lines}, files)


def experts() -> list[dict[str, LowRank]]:
    """Norms 4, 1 and 2 in one module."""
    row = torch.tensor([[1.0, 0.0, 0.0]])
    return [{"m": LowRank(torch.tensor([[size], [0.0]]), row)} for size in (4.0, 1.0, 2.0)]


def test_no_experts_change_is_larger_than_the_median() -> None:
    """(2 + 1 + 2) / 3; with a limit of 1.5 medians (3 + 1 + 2) / 3, with a large one the plain mean."""
    for options, expected in (({}, 5 / 3), ({"limit": 1.5}, 2.0), ({"limit": 100}, 7 / 3)):
        merged = merge_experts(experts(), method="clipped", **options)
        assert float(merged.deltas["m"].dense()[0, 0]) == pytest.approx(expected)
    assert merge_experts(experts(), method="clipped").relative_error == pytest.approx(2 / 7)
    lacking = [*experts(), {}]
    assert float(merge_experts(lacking, method="clipped").deltas["m"].dense()[0, 0]) == pytest.approx(5 / 4)


def test_its_options_are_checked_in_a_recipe_and_on_the_command_line(tmp_path: Path) -> None:
    path = tiny_recipe(tmp_path / "recipe", tmp_path, reduce={"method": "clipped"})
    assert load_config(path, ["reduce.options.limit=2"]).reduce.options == {"limit": 2.0}
    assert read_options("clipped", ["limit=0.5"]) == {"limit": 0.5}
    for change, told in (
        ("reduce.options.limit=-1", "limit -1 cannot be used; it is positive"),
        ("reduce.options.limits=1", "the method clipped has no option limits; it takes: limit"),
        ("reduce.method=cliped", "unknown merge method cliped; there are exact, "),
        ("reduce.method=cliped", "(did you mean clipped?)"),
        ("reduce.method=plain", "the reducer plain (my_reducer:clipped) is no Reducer"),
        ("reduce.method=gone", "the reducer gone (my_reducer:NONE) cannot be loaded: AttributeError"),
    ):
        with pytest.raises(ParetuneError) as caught:
            load_config(path, [change])
        assert told in str(caught.value)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "told"),
    [("fails", "the reducer fails failed at m: ZeroDivisionError: division by zero"),
     ("other", "m: the reducer must return a LowRank of shape (2, 3), not one of shape (2, 2)"),
     ("dense", "m: the reducer must return a LowRank of shape (2, 3), not a Tensor"),
     ("lost", "m: the reducer returned NaN or infinity")],
)  # fmt: skip
def test_what_it_returns_is_checked(name: str, told: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
        merge_experts(experts(), method=name)


def test_a_round_is_reduced_by_it(tiny_sd3: Path, tmp_path: Path) -> None:
    path = tiny_recipe(tmp_path / "recipe", tiny_sd3, reduce={"method": "clipped", "options": {"limit": 1}})
    config = load_config(path)
    round_ = build_plan(config).methods[0].rounds[0]
    for task, delta in zip(round_.tasks, experts(), strict=False):
        files = save_delta(tmp_path / "run" / task.folder, delta, "base", {}, "transformer")
        write_manifest(tmp_path / "run" / task.folder, "expert", "x", files)
    reduce_round(config, round_, tmp_path / "run", None)
    merged = tmp_path / "run" / round_.merged
    assert read_manifest(merged)["method"] == "clipped"
    total = load_delta([merged])["m"].dense()
    assert float(total[0, 0]) == pytest.approx(1.0)  # norms 4 and 1, both cut to 1


def test_the_page_shows_the_example() -> None:
    page = (EXAMPLES.parent / "docs" / "add-a-reducer.md").read_text()
    assert '--8<-- "examples/my_reducer.py"' in page
    assert len(page.splitlines()) < 60
