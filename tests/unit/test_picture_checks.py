"""Input pictures that do not fit a recipe's model are told by `plan` and before a run trains, in one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paretune.config import RunConfig
from paretune.models.family import families, misfit
from paretune.planning.methods import build_plan
from paretune.recipes import load_config
from paretune.stages.claim import check, missing_files
from paretune.stages.map import MapJob, expert_inputs
from paretune.stages.prompt_checks import check_unloaded
from paretune.types import ParetuneError
from tests.conftest import tiny_recipe
from tests.families import cases, write_picture

CASE = cases()["flux_kontext"]


@pytest.fixture(scope="module")
def kontext(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return CASE.make(tmp_path_factory.mktemp("kontext"))


def _edit(folder: Path, pipeline: Path) -> tuple[RunConfig, Path]:
    recipe = tiny_recipe(folder, pipeline, CASE.pictures, model=dict(CASE.model))
    return load_config(recipe), folder / "prompts.jsonl"


def _told(work: Any, *words: Any) -> str:
    with pytest.raises(ParetuneError) as caught:
        work(*words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _replace(file: Path, line: int, **changes: Any) -> None:
    rows = [json.loads(row) for row in file.read_text().splitlines()]
    rows[line - 1] = {**rows[line - 1], **changes}
    file.write_text("\n".join(json.dumps(row) for row in rows))


def test_a_recipe_that_edits_needs_a_picture_in_every_record(kontext: Path, tmp_path: Path) -> None:
    config, prompts = _edit(tmp_path, kontext)
    check(config)
    _replace(prompts, 2, image=None)
    told = (
        f"{prompts}, line 2: the model cannot take 'two blue squares': flux_kontext works on an input "
        'picture: name it in the record, "image": PATH'
    )
    assert _told(check_unloaded, config, missing_files(config)) == told
    assert _told(check, config) == told


def test_a_picture_is_not_ignored_by_a_model_that_takes_none(tiny_flux: Path, tmp_path: Path) -> None:
    model = {"height": 16, "width": 16, "options": {"max_sequence_length": 16}}
    config = load_config(tiny_recipe(tmp_path, tiny_flux, CASE.pictures, model=model))
    told = _told(check, config)
    assert told.startswith(f"{tmp_path}/prompts.jsonl, line 1: the model cannot take 'a red circle': flux ")
    assert told.endswith('leave "image" out of the record, or take a model that edits pictures')
    assert _told(check_unloaded, config, []) == told


def test_a_damaged_picture_is_reported_with_its_line(kontext: Path, tmp_path: Path) -> None:
    config, prompts = _edit(tmp_path, kontext)
    (tmp_path / "inputs" / "half.png").write_bytes((tmp_path / "inputs" / "0.png").read_bytes()[:200])
    _replace(prompts, 3, image="inputs/half.png")
    assert _told(check, config) == (
        f"{prompts}, line 3: the model cannot take 'a sign saying kite': the picture "
        f"{tmp_path / 'inputs' / 'half.png'} cannot be read: it is damaged, or no picture"
    )
    _replace(prompts, 3, image="inputs/none.png")
    missing = f"prompts.jsonl:3: the picture {tmp_path}/inputs/none.png does not exist"
    assert _told(check, config).endswith(missing)


def test_a_changed_picture_is_another_input_of_the_expert(kontext: Path, tmp_path: Path) -> None:
    config, _ = _edit(tmp_path, kontext)
    job = MapJob(config, build_plan(config).methods[0].rounds[0].tasks[0], tmp_path, "base")
    before = expert_inputs(job)
    assert expert_inputs(job) == before
    write_picture(tmp_path / "inputs" / "1.png", CASE.pictures[1], seed=7)
    assert expert_inputs(job) != before


@pytest.mark.parametrize(
    ("picture", "with_one", "without"),
    [("none", "takes no input picture", None), ("required", None, "works on an input picture"),
     ("optional", None, None)],
)  # fmt: skip
def test_a_family_says_whether_it_takes_a_picture(
    picture: Any, with_one: str | None, without: str | None
) -> None:
    family = replace(families()["flux"], picture=picture)
    for image, wrong in (("a.png", with_one), (None, without)):
        told = misfit(family, image)
        assert (told is None) == (wrong is None)
        assert (wrong or "") in (told or "")
