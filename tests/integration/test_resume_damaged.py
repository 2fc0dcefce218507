"""`--resume` of runs that were damaged, and runs whose folder goes away under their hands."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paretune import run as runs
from paretune.files import read_json
from paretune.recipes import load_config
from paretune.records.seal import check_run
from paretune.report import page
from paretune.types import ParetuneError
from tests.conftest import tiny_recipe
from tests.damage import cut, drop_line, flip, set_value, swap
from tests.executing import InThisProcess


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, and a page without its plots."""
    monkeypatch.setattr(runs, "open_executor", InThisProcess)
    monkeypatch.setattr(page, "all_plots", lambda run: [])


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def resume(recipe: Path, out: Path, report: Callable[[Any], None] = lambda _: None, **flags: bool) -> Any:
    return runs.run(load_config(recipe), out, report, resume=True, **flags)


def refusal(recipe: Path, out: Path, report: Callable[[Any], None] = lambda _: None, **flags: bool) -> str:
    with pytest.raises(ParetuneError) as caught:
        resume(recipe, out, report, **flags)
    (line,) = str(caught.value).splitlines()
    return line


def test_a_run_is_sealed_and_goes_on(recipe: Path, whole: Path, copied: Path) -> None:
    check_run(whole, verify=True)
    before = read_json(whole / "summary.json")
    after = resume(recipe, copied)
    assert after | {"timing": 0} == before | {"timing": 0}
    check_run(copied, verify=True)


def _scale(run: Path) -> None:
    set_value(run / "evaluation/base/manifest.json", ["scales", 0, "high"], 4.0)


STAGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a scale": ("evaluation/base", _scale),
    "a log": ("round-1/experts/red", lambda run: flip(run / "round-1/experts/red/metrics.jsonl")),
    "a table": ("evaluation/base", lambda run: drop_line(run / "evaluation/base/rows.jsonl")),
    "a manifest": ("final", lambda run: cut(run / "final/manifest.json")),
    "experts": ("round-2/experts/red", lambda run: swap(
        run / "round-2/experts/red", run / "round-2/experts/dark")),
}  # fmt: skip


@pytest.mark.parametrize("damage", STAGES)
def test_a_damaged_stage_is_refused(recipe: Path, copied: Path, damage: str) -> None:
    folder, work = STAGES[damage]
    work(copied)
    told = refusal(recipe, copied)
    assert str(copied / folder) in told
    assert "delete" in told


def test_what_is_made_of_stages_is_made_again(recipe: Path, whole: Path, copied: Path) -> None:
    drop_line(copied / "evaluation.jsonl")
    cut(copied / "summary.json")
    (copied / "samples" / "base" / "red-000.png").write_bytes(b"")
    resume(recipe, copied)
    for name in ("evaluation.jsonl", "samples/base/red-000.png"):
        assert (copied / name).read_bytes() == (whole / name).read_bytes()
    assert read_json(copied / "summary.json")["methods"] == read_json(whole / "summary.json")["methods"]


def test_a_damaged_time_is_reported_once(recipe: Path, copied: Path) -> None:
    (copied / "timing.jsonl").write_text('{"phase": "map"}\n')
    assert refusal(recipe, copied) == (
        f"{copied}/timing.jsonl was changed or damaged (its hash differs); delete it and resume: only the "
        "recorded times are lost"
    )
    (copied / "timing.jsonl").unlink()
    resume(recipe, copied)


def test_another_base_is_refused_by_the_name_of_its_file(
    tiny_sd3: Path, recipe: Path, copied: Path
) -> None:
    weights = tiny_sd3 / "transformer" / "diffusion_pytorch_model.safetensors"
    before = weights.stat(), weights.read_bytes()
    try:
        flip(weights, 0.99)
        told = refusal(recipe, copied)
    finally:
        weights.write_bytes(before[1])
    assert told.startswith(f"{weights} was changed or damaged (its hash differs) since {copied} was made")
    resume(recipe, copied)  # other times, the same bytes


def test_a_run_of_the_version_before_goes_on_and_is_sealed(recipe: Path, whole: Path, copied: Path) -> None:
    """It had neither seals nor places nor logs in its manifests."""
    (copied / "seal.json").unlink()
    for manifest in copied.rglob("manifest.json"):
        table = json.loads(manifest.read_text())
        for key in ("seal", "place", "logs"):
            table.pop(key, None)
        manifest.write_text(json.dumps(table))
    check_run(copied)
    resume(recipe, copied)
    check_run(copied, verify=True)
    assert (copied / "evaluation.jsonl").read_bytes() == (whole / "evaluation.jsonl").read_bytes()


def _replace(out: Path) -> None:
    """A copy in the place of the folder."""
    moved = out.with_name("moved")
    out.rename(moved)
    shutil.copytree(moved, out)


LOST: dict[str, Callable[[Path], object]] = {
    "removed": shutil.rmtree,
    "replaced": _replace,
    "emptied": lambda out: [shutil.rmtree(p) if p.is_dir() else p.unlink() for p in out.glob("[!.]*")],
}


@pytest.mark.parametrize("how", LOST)
@pytest.mark.parametrize("stage", ["map", "evaluate", "report"])
def test_a_folder_that_goes_away_is_no_success(recipe: Path, copied: Path, how: str, stage: str) -> None:
    done: list[int] = []

    def report(event: dict[str, Any]) -> None:
        if event.get("stage") == stage and not done:
            done.append(1)
            LOST[how](copied)

    told = refusal(recipe, copied, report)
    assert str(copied) in told
    assert stage != "map" or "was removed or replaced while this run worked in it" in told


def test_a_stage_that_goes_away_is_no_success(recipe: Path, copied: Path) -> None:
    def report(event: dict[str, Any]) -> None:
        if event.get("stage") == "report":
            shutil.rmtree(copied / "round-1" / "experts" / "red")

    assert refusal(recipe, copied, report) == (
        f"{copied}/round-1/experts/red was removed while this run worked: --resume makes it again"
    )


def test_a_new_run_into_a_folder_that_goes_away(tiny_sd3: Path, tmp_path: Path) -> None:
    """At the first event already: nothing is trained into nowhere."""
    recipe, out = tiny_recipe(tmp_path / "recipe", tiny_sd3), tmp_path / "out"

    def report(event: dict[str, Any]) -> None:
        shutil.rmtree(out, ignore_errors=True)

    with pytest.raises(ParetuneError, match="was removed or replaced while this run worked in it"):
        runs.run(load_config(recipe), out, report)
    assert not (out / "summary.json").exists()
