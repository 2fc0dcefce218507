"""What can be wrong with the folder of a flow model is one line, told before anything is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from paretune.models.detect import check_model
from paretune.models.family import families
from paretune.planning.estimate import estimate
from paretune.planning.methods import build_plan
from paretune.recipes import load_config
from paretune.types import ParetuneError
from tests.conftest import tiny_recipe


@pytest.fixture
def copied(tiny_sd3: Path, tmp_path: Path) -> Path:
    """A pipeline to damage."""
    return Path(shutil.copytree(tiny_sd3, tmp_path / "pipeline"))


def _plan(pipeline: Path) -> None:
    config = load_config(tiny_recipe(pipeline.parent / "recipe", pipeline))
    estimate(config, build_plan(config), "cpu")


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder", "text_encoder_2"])
def test_a_missing_part_is_named(copied: Path, part: str) -> None:
    index = copied / "model_index.json"
    whole = index.read_text()
    index.write_text(json.dumps({**json.loads(whole), part: [None, None]}))
    with pytest.raises(ParetuneError, match=rf"pipeline lacks its {part}$"):
        _plan(copied)
    index.write_text(whole)
    (copied / part / "config.json").unlink()
    with pytest.raises(ParetuneError, match=rf"pipeline lacks its {part}/config\.json$"):
        _plan(copied)
    shutil.rmtree(copied / part)
    with pytest.raises(ParetuneError, match=rf"pipeline lacks its {part}$"):
        _plan(copied)


def test_t5_may_be_missing(copied: Path, tiny_sd3_t5: Path) -> None:
    assert not (copied / "text_encoder_3").exists()
    assert check_model(str(copied)) is families()["sd3"]
    assert check_model(str(tiny_sd3_t5)) is families()["sd3"]
    _plan(copied)


def _truncated(pipeline: Path) -> None:
    file = next((pipeline / "transformer").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:50])


def _pointer(pipeline: Path) -> None:
    file = next((pipeline / "vae").glob("*.safetensors"))
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def _other_family(pipeline: Path) -> None:
    index = pipeline / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusion3Pipeline", "FluxPipeline"))


def _half_a_config(pipeline: Path) -> None:
    config = pipeline / "transformer" / "config.json"
    facts = json.loads(config.read_text())
    del facts["patch_size"]
    config.write_text(json.dumps(facts))


def _no_json(pipeline: Path) -> None:
    (pipeline / "transformer" / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_truncated, r"transformer.*safetensors is damaged"),
        (_pointer, "run `git lfs pull`"),
        (_other_family, "needs a FluxTransformer2DModel, and the transformer is a SD3Transformer2DModel"),
        (_half_a_config, r"config\.json of .* is damaged: 'patch_size'"),
        (_no_json, r"config\.json is damaged"),
    ],
)
def test_a_damaged_folder_is_one_line_when_planned(
    copied: Path, damage: Callable[[Path], None], told: str
) -> None:
    damage(copied)
    with pytest.raises(ParetuneError, match=told) as found:
        _plan(copied)
    assert "\n" not in str(found.value)
