"""Every kind of task works in a folder that has nothing of the run but what it says that it reads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from paretune import run as running
from paretune.recipes import load_config
from paretune.stages.luggage import recipe_files
from paretune.types import ParetuneError
from tests.carrying import Carrying
from tests.conftest import tiny_recipe
from tests.executing import InThisProcess

ONE = {"rounds": 1, "methods": ["mapreduce"], "train": {"epochs": 1}}
KINDS: dict[str, dict[str, Any]] = {
    "search": {
        **ONE, "reduce": {"method": "search", "options": {"divisions": 1, "prompts": 1}},
        "tokens": {"steps": 1, "options": {"samples": 4, "batch_size": 2, "every": 1, "validation": 1}},
    },
    "distil": {
        **ONE,
        "reduce": {"method": "distil", "step": [1, 2], "prompts": 1, "options": {"steps": 1, "batch": 2}},
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_tasks_are_carried_and_their_digests_are_those_of_here(
    kind: str, tiny_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names in the recipe are relative: elsewhere there is such a file only where it was sent."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(running, "write_report", lambda out: None)
    config = load_config(tiny_recipe(Path("recipe"), tiny_sd3, evaluate={"steps": 2}, **KINDS[kind]))
    away, out = Carrying(tmp_path / "elsewhere"), Path("out")
    monkeypatch.setattr(running, "open_executor", lambda config, usual: away)
    summary = running.run(config, out, lambda _: None)
    made = {path: path.read_bytes() for path in out.rglob("manifest.json")}
    files = {"recipe/rewards.py", "recipe/prompts.txt"}
    assert away.sent["training round-1/experts/red"] == files
    read = {name for name in away.sent["measuring expert:red"] if name not in files}
    assert {Path(name).parent.as_posix() for name in read if "checkpoints" not in name} == {
        "round-1/experts/red"
    }
    assert {"checkpoints/epoch-0001/state.safetensors", "metrics.jsonl", "manifest.json"} <= away.brought[
        "training round-1/experts/red"
    ]
    # In this process nothing is made again: every digest that was made elsewhere is the one of here.
    monkeypatch.setattr(running, "open_executor", lambda config, usual: InThisProcess())
    assert running.run(config, out, lambda _: None, resume=True)["methods"] == summary["methods"]
    assert {path: path.read_bytes() for path in out.rglob("manifest.json")} == made


def test_a_machine_with_another_base_model_is_a_line(
    tiny_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(tiny_recipe(Path("recipe"), tiny_sd3, **ONE))
    away, out = Carrying(tmp_path / "elsewhere"), Path("out")
    monkeypatch.setattr(running, "open_executor", lambda config, usual: away)
    monkeypatch.setattr(running, "describe", lambda *_: {"model_fingerprint": "that of another model"})
    with pytest.raises(ParetuneError) as caught:
        running.run(config, out, lambda _: None)
    assert str(caught.value) == (
        f"model.path: {tiny_sd3} is another model here than the one that the run began with; put the same "
        "files on every machine"
    )


def test_the_files_of_a_recipe_are_those_that_it_names_and_their_neighbours(
    tiny_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tiny_recipe(Path("recipe"), tiny_sd3, pictures=[(8, 8)])
    Path("recipe/shade.py").write_text("LEVEL = 1\n")
    code = "from shade import LEVEL\n\nred = dark = lambda images, prompts: []\n"
    Path("recipe/rewards.py").write_text(code)
    assert set(recipe_files(load_config(path))) == {
        "recipe/rewards.py", "recipe/shade.py", "recipe/prompts.jsonl", "recipe/inputs/0.png",
    }  # fmt: skip
    shutil.copytree("recipe", "fixed")
    text = path.read_text().replace("recipe/", f"{tmp_path}/fixed/")
    path.write_text(text)
    assert f"{tmp_path}/fixed/shade.py" in set(recipe_files(load_config(path)))
    assert json.loads(Path("recipe/prompts.jsonl").read_text().splitlines()[0])["image"] == "inputs/0.png"
