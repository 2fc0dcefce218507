"""What tells one reward from another, and what is written of the samples it scored."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from paretune.recipes import find_recipe, load_config
from paretune.samples.media import medium_of
from paretune.stages.evaluate import _save_samples
from paretune.stages.scorers import named
from paretune.types import ParetuneError


def test_a_reward_of_a_file_is_another_one_when_the_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def red(images, prompts): ...\n")
    spec = f"{file}:red"
    before = named(spec)
    assert before == named(spec)
    file.write_text("def red(images, prompts): return [0] * len(images)\n")
    assert named(spec) != before
    assert (named("pictures.ocr"), named("ocr")) == ("ocr", "scene_ocr")  # their first names
    assert named("package.module:Name") == "package.module:Name"


@pytest.mark.parametrize(
    "line", ["import helper", "from . import helper", "from .helper import f", "from helper import f",
             "from {folder} import helper", "from {folder}.helper import f", "import {folder}.helper as h",
             "import between", "from package import helper"],
)  # fmt: skip
def test_a_reward_is_another_one_when_a_file_that_it_imports_changes(tmp_path: Path, line: str) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("from .helper import f\n")
    (tmp_path / "between.py").write_text("import helper\nimport between, os.path\n")
    file = tmp_path / "mine.py"
    file.write_text(f"{line.format(folder=tmp_path.name)}\n")
    helpers = [tmp_path / "helper.py", tmp_path / "package" / "helper.py"]
    for helper in helpers:
        helper.write_text("f = 1\n")
    before = named(f"{file}:red")
    (tmp_path / "other.py").write_text("f = 2\n")
    assert named(f"{file}:red") == before
    for helper in helpers:
        helper.write_text("f = 3\n")
    assert named(f"{file}:red") != before


def test_a_disk_that_fills_up_with_samples_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(find_recipe("smoke"))

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(type(medium_of(config.model)), "save", full)
    with pytest.raises(ParetuneError, match="no space left to write"):
        _save_samples(tmp_path / "evaluation", "ocr", torch.zeros(1, 3, 4, 4), config)
