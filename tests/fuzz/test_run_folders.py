"""Runs whose files were damaged at random: every command says one line that names a file, or is right."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paretune import run as runs
from paretune.commands.export import export_adapter
from paretune.files import read_json
from paretune.recipes import load_config
from paretune.report import page, write_report
from paretune.report.compare import compare_runs
from paretune.sampling.source import open_source
from paretune.types import ParetuneError
from tests.conftest import tiny_recipe
from tests.damage import DAMAGES, WRONG, set_value
from tests.executing import InThisProcess
from tests.unit.test_damaged_records import places

# A warning of a plot is no fault here: odd figures give some, and so does a run of one round.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module", autouse=True)
def _in_process() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "open_executor", InThisProcess)
        yield


@pytest.fixture(scope="module")
def recipe(tiny_sd3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_recipe(tmp_path_factory.mktemp("recipe"), tiny_sd3, rounds=1, train={"epochs": 1})


@pytest.fixture(scope="module")
def whole(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "whole"
    runs.run(load_config(recipe), out, lambda _: None)
    return out


@pytest.fixture(scope="module")
def right(recipe: Path, whole: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each command gives of the run as it is."""
    out = tmp_path_factory.mktemp("right")
    run = Path(shutil.copytree(whole, out / "run"))
    return {name: work(run, recipe, out / name) for name, work in COMMANDS.items()}


def _resume(run: Path, recipe: Path, out: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "all_plots", lambda _: [])
        return runs.run(load_config(recipe), run, lambda _: None, resume=True) | {"timing": 0}


def _export(run: Path, recipe: Path, out: Path) -> Any:
    export_adapter(run, out, None)
    return {path.name: path.read_bytes() for path in out.iterdir()}


def _compare(run: Path, recipe: Path, out: Path) -> Any:
    return compare_runs([str(run)], draws=10)["methods"]


def _sample(run: Path, recipe: Path, out: Path) -> Any:
    return open_source(str(run)).methods


def _report(run: Path, recipe: Path, out: Path) -> Any:
    write_report(run)  # with its plots: odd figures break those
    return None


COMMANDS: dict[str, Callable[[Path, Path, Path], Any]] = {
    "export": _export, "compare": _compare, "sample": _sample, "report": _report, "resume": _resume,
}  # fmt: skip
RECORDS = (".json", ".jsonl", ".yaml")


def damaged(run: Path, data: st.DataObject) -> Path:
    """Damage one file below the run, records before others; returns it."""
    files = sorted(
        p for p in run.rglob("*") if p.is_file() and not {"plots", "checkpoints"} & set(p.parts)
        and p.name not in {"report.html", ".lock"}
    )  # fmt: skip
    if data.draw(st.booleans()):
        files = [p for p in files if p.suffix in RECORDS]
    path = data.draw(st.sampled_from(files))
    if path.suffix == ".json" and data.draw(st.booleans()):
        keys = data.draw(st.sampled_from(list(places(json.loads(path.read_text()))) or [[]]))
        if keys:
            set_value(path, keys, data.draw(st.sampled_from(WRONG)))
            return path
    DAMAGES[data.draw(st.sampled_from(sorted(DAMAGES)))](path)
    return path


@settings(
    max_examples=60, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(data=st.data())
@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "unsealed"])
def test_one_line_or_right(
    recipe: Path, whole: Path, right: dict[str, Any], tmp_path_factory: pytest.TempPathFactory,
    sealed: bool, data: st.DataObject,
) -> None:  # fmt: skip
    out = tmp_path_factory.mktemp("fuzz")
    run = Path(shutil.copytree(whole, out / "run"))
    if not sealed:
        (run / "seal.json").unlink()
    path = damaged(run, data)
    name = data.draw(st.sampled_from(sorted(COMMANDS)))
    try:
        found = COMMANDS[name](run, recipe, out / "made")
    except ParetuneError as error:
        (line,) = str(error).splitlines()
        assert line
        assert not (out / "made").exists()
    else:
        # Without a seal a figure that was edited is a figure like any other; what is no figure is told.
        if sealed or name == "resume":
            assert found == right[name], path
    finally:
        shutil.rmtree(out)


def test_what_is_right_is_right(whole: Path, right: dict[str, Any]) -> None:
    assert set(right) == set(COMMANDS)
    assert right["resume"] == read_json(whole / "summary.json") | {"timing": 0}
