"""An executor that another package adds in one file: named by a recipe, and a whole run goes through it."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from paretune.executors import find_executor, open_executor
from paretune.recipes import changed_keys, load_config
from paretune.run import run
from paretune.types import ParetuneError
from tests.conftest import tiny_recipe
from tests.packages import EXAMPLES, example, install


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["one_by_one = my_executor:OneByOne", "another = my_executor:OneByOne",
             "gone = no_module:Gone", "number = my_executor:NUMBER"]  # fmt: skip
    files = example("my_executor")
    files["my_executor"] += "\n\nNUMBER = 5\n"
    install(tmp_path / "site", monkeypatch, {"paretune.executors": lines}, files)


def test_a_run_goes_through_it_and_on_through_another(
    tiny_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paretune.run.write_report", lambda out: None)
    path = tiny_recipe(tmp_path / "recipe", tiny_sd3, rounds=1, train={"epochs": 1})
    sets = ["methods=[mapreduce]", "executor.device=cpu"]
    config, other = (load_config(path, [*sets, f"executor.kind={k}"]) for k in ("one_by_one", "another"))
    before = set(multiprocessing.active_children())
    events: list[Any] = []
    summary = run(config, tmp_path / "run", events.append)
    assert set(multiprocessing.active_children()) == before  # in this process
    assert {"base", "mapreduce"} <= set(summary["methods"])
    assert "kind: one_by_one" in (tmp_path / "run" / "config.yaml").read_text()
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["device"] == "cpu"
    # Where it ran changes no result: the folder goes on with another executor, and nothing is made again.
    assert changed_keys(config, load_config(path, sets)) == []  # local
    weights = (tmp_path / "run" / "final" / "adapter_model.safetensors").read_bytes()
    again = run(other, tmp_path / "run", events.append, resume=True)
    assert again["methods"] == summary["methods"]
    assert (tmp_path / "run" / "final" / "adapter_model.safetensors").read_bytes() == weights


@pytest.mark.parametrize(
    ("kind", "told"),
    [("one_by_on", "executor.kind: there is no executor one_by_on; did you mean one_by_one?"),
     ("gone", "executor gone (no_module:Gone) cannot be loaded: ModuleNotFoundError: No module named"),
     ("number", "executor number (my_executor:NUMBER) has no map, __enter__, __exit__: it must be an")],
)  # fmt: skip
def test_a_wrong_one_is_a_line_before_anything_begins(tmp_path: Path, kind: str, told: str) -> None:
    config = load_config(tiny_recipe(tmp_path / "recipe", tmp_path), [f"executor.kind={kind}"])
    with pytest.raises(ParetuneError) as caught:
        open_executor(config, usual=1)
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)


def test_the_recipe_says_local_by_default(tmp_path: Path) -> None:
    config = load_config(tiny_recipe(tmp_path / "recipe", tmp_path))
    assert config.executor.kind == "local"
    assert find_executor("local").__name__ == "LocalExecutor"


def test_the_page_shows_the_example() -> None:
    page = (EXAMPLES.parent / "docs" / "add-an-executor.md").read_text()
    assert '--8<-- "examples/my_executor.py"' in page
    assert len(page.splitlines()) < 60
