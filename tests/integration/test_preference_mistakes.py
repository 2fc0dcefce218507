"""Mistakes about preferences, each told in one line with exit code 2 before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from paretune.planning.notices import notices
from paretune.recipes import load_config
from tests.conftest import tiny_recipe
from tests.integration.commands import call
from tests.integration.test_preference_data import recipe, refused
from tests.preference_files import make_pairs, make_pictures, write_records

PAIR = {"prompt": "p", "chosen": "p0.png", "rejected": "p1.png"}


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({**PAIR, "prompt": "a \ud800 circle"}, "a text holds the control character U+D800"),
        ({**PAIR, "captions": ["a", "b\u0007"]}, "a text holds the control character U+0007"),
        ({**PAIR, "captions": ["a", ""]}, "a caption is a text that is not empty"),
        ({**PAIR, "captions": ["a"]}, "2 samples, but 1 captions"),
        ({"prompt": "p", "samples": ["p0.png"]}, "a list has at least two samples, and this one has 1"),
        ({**PAIR, "chosen": "large.png"}, "large.png has 24x24 pixels, and the model draws 16x16"),
    ],
)  # fmt: skip
def test_records_of_another_world(
    tiny_sd3: Path, tmp_path: Path, record: dict[str, Any], told: str
) -> None:
    make_pictures(tmp_path, 2)
    (tmp_path / "large.png").write_bytes((tmp_path / make_large(tmp_path)).read_bytes())
    path = write_records(tmp_path / "pairs.jsonl", [PAIR, PAIR, record])
    assert refused(recipe(tmp_path / "run", tiny_sd3, path)).startswith(f"{path}:3: {told}")


def make_large(folder: Path) -> Path:
    return Path("sized") / make_pictures(folder / "sized", 1, 24)[0]


def test_captions_that_are_cut_and_lists_that_tie_are_reported(tiny_sd3: Path, tmp_path: Path) -> None:
    make_pictures(tmp_path, 2)
    long = {**PAIR, "captions": ["a red circle " * 60, "a blue circle"]}
    tie = {"prompt": "p", "samples": ["p0.png", "p1.png"], "scores": [1, 1]}
    path = write_records(tmp_path / "pairs.jsonl", [PAIR, long, tie, tie])
    told = notices(load_config(recipe(tmp_path / "run", tiny_sd3, path)))
    assert any(line.startswith(f"{path}: 1 of 3 prompts is longer than the") for line in told)
    assert told[-1] == f"{path}: 2 of 4 lists tie and are left out"
    assert notices(load_config(recipe(tmp_path / "plain", tiny_sd3, make_pairs(tmp_path / "good")))) == []


def test_parts_that_a_family_does_not_have(
    tiny_sd3: Path, tiny_hunyuan: Path, tmp_path: Path
) -> None:
    """Frames of pictures, patches of clips."""
    clips = {"height": 16, "width": 16, "options": {"frames": 5}}
    for pipeline, name, model in ((tiny_sd3, "dense_dpo", {}), (tiny_hunyuan, "patch_dpo", clips)):
        made = tiny_recipe(tmp_path / name, pipeline, objective={"name": name}, model=model)
        line = refused(made)
        assert line.startswith(f"objective.name: {name} does not train {pipeline}; choose one of nft, ")


def test_the_command_tells_one_line_and_writes_nothing(tiny_sd3: Path, tmp_path: Path) -> None:
    path = tiny_recipe(tmp_path, tiny_sd3)
    raw = yaml.safe_load(path.read_text())
    for options, told in (({"beta": 0}, "beta: Input should be greater than 0 (got 0)"),
                          ({"bta": 5}, "did you mean beta?")):  # fmt: skip
        raw["objective"] = {"name": "diffusion_dpo", "options": options}
        path.write_text(yaml.safe_dump(raw))
        done = call("run", path, "--out", tmp_path / "run", "--quiet")
        assert done.returncode == 2
        (line,) = done.stderr.strip().splitlines()
        assert told in line
        assert not (tmp_path / "run").exists()
