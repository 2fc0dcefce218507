"""summary.json from made-up rows: directions and ranges as recorded, hypervolumes worked out by hand."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any, NoReturn

import pytest

from paretune.config import RunConfig
from paretune.files import write_json
from paretune.planning.methods import build_plan
from paretune.recipes import parse_config
from paretune.stages import scorers
from paretune.stages.scorers import Scale, read_scales, recorded
from paretune.stages.summarise import summarise, tables

SCALES = [
    Scale("ocr", "reward", "ocr", 0.0, 1.0, True),
    Scale("ocr", "judge", "reader", None, None, True),
    Scale("blur", "reward", "blur", 0.0, 4.0, False),
    Scale("blur", "judge", "edges", None, 9.0, False),
]
MEANS = {"base": (0.4, 3.0), "expert:ocr": (0.8, 3.5), "expert:blur": (0.2, 1.0), "mapreduce@1": (0.6, 2.0)}


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """Two rewards, of which blur is a cost."""
    (tmp_path / "rewards.py").write_text(
        "def ocr(images, prompts): ...\n"
        "class Blur:\n"
        "    name, range, higher_is_better = 'any', (0, 4), False\n"
        "    def score(self, samples, prompts): ...\n"
    )
    rewards = {
        name: {"reward": f"{tmp_path / 'rewards.py'}:{spec}", "prompts": "p.txt", "eval_prompts": "e.txt"}
        for name, spec in (("ocr", "ocr"), ("blur", "Blur"))
    }
    return parse_config({"rounds": 1, "methods": ["mapreduce"], "rewards": rewards}, "recipe")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The files of a measured run that its summary needs besides the rows."""
    write_json(tmp_path / "round-1" / "merged" / "diagnostics.json", {"contraction": None, "spread": 1.0})
    manifest = {"stage": "evaluation", **recorded(SCALES)}
    write_json(tmp_path / "evaluation" / "base" / "manifest.json", manifest)
    return tmp_path


def refuse(*_: object, **__: object) -> NoReturn:
    raise AssertionError("a reward was loaded")


def test_directions_and_ranges_come_from_the_manifest(
    config: RunConfig, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorers, "load_reward", refuse)
    rows = [
        {"method": method, "reward": reward, "prompt": prompt, "value": mean + offset}
        for method, means in MEANS.items()
        for reward, mean in zip(("ocr", "blur"), means, strict=True)
        for prompt, offset in (("a", -0.1), ("b", 0.1))
    ]
    told = summarise(config, build_plan(config), run, rows, {"total": 1.0})
    assert told == json.loads((run / "summary.json").read_text())
    assert told["rewards"] == ["ocr", "blur"]
    assert told["judges"] == {"ocr": "reader", "blur": "edges"}
    assert told["higher_is_better"] == {"ocr": True, "reader": True, "blur": False, "edges": False}
    assert told["ranges"] == {"ocr": [0.0, 1.0], "blur": [0.0, 4.0]}
    assert told["reference_point"] == {"ocr": 0.0, "blur": 4.0}
    # ocr times what is left of blur's range
    expected = {m: ocr * (4 - blur) / 4 for m, (ocr, blur) in MEANS.items()}
    assert told["hypervolume"] == pytest.approx({**expected, "mapreduce": expected["mapreduce@1"]})


def test_rounds_that_are_not_measured_are_left_out(config: RunConfig, run: Path) -> None:
    changed = config.model_copy(update={"rounds": 3})
    shutil.copytree(run / "round-1", run / "round-3")
    rows = [
        {"method": method, "reward": reward, "prompt": "a", "value": 0.5}
        for method in ("base", "mapreduce@1", "mapreduce@3") for reward in ("ocr", "blur")
    ]  # fmt: skip
    told = summarise(changed, build_plan(changed), run, rows, {})
    assert [entry["round"] for entry in told["rounds"]] == [1, 3]
    assert told["methods"]["mapreduce"] == told["methods"]["mapreduce@3"]


def test_untargeted_rewards_are_reported_by_the_name_of_their_scores(config: RunConfig, run: Path) -> None:
    """A reward of a file is specified as file.py:Name, and its rows know it by its name alone."""
    own = [Scale(s.prompt_set, "untargeted", "sharpness", 0.0, 1.0, True) for s in SCALES[::2]]
    manifest = {"stage": "evaluation", **recorded(SCALES + own)}
    write_json(run / "evaluation" / "base" / "manifest.json", manifest)
    settings = config.evaluate.model_copy(update={"untargeted": ("mine.py:Sharpness",)})
    rows = [
        {"method": method, "reward": reward, "prompt": "a", "value": 0.5}
        for method in MEANS for reward in ("ocr", "blur", "sharpness")
    ]  # fmt: skip
    changed = config.model_copy(update={"evaluate": settings})
    assert summarise(changed, build_plan(config), run, rows, {})["untargeted"] == ["sharpness"]


def test_an_evaluation_that_recorded_no_scales_asks_the_rewards(config: RunConfig, run: Path) -> None:
    folder = run / "evaluation" / "base"
    assert read_scales(config, folder) == SCALES
    write_json(folder / "manifest.json", {"stage": "evaluation"})
    ocr, blur = read_scales(config, folder)
    assert ocr == Scale("ocr", "reward", "ocr", None, None, True)
    assert ocr.range == (-math.inf, math.inf)
    assert blur == Scale("blur", "reward", "blur", 0, 4, False)


def test_one_text_with_two_input_pictures_is_two_observations() -> None:
    def row(value: float, image: str) -> dict[str, Any]:
        own = {"image": image} if image else {}
        return {"method": "base", "reward": "ocr", "prompt": "make it blue", "value": value, **own}

    means, errors = tables([row(0.0, "aa"), row(0.0, "aa"), row(1.0, "bb")])
    assert means["base"]["ocr"] == 0.5
    assert errors["base"]["ocr"] == pytest.approx(0.5)
    means, errors = tables([row(0.0, ""), row(1.0, "")])  # two samples of one prompt
    assert (means["base"]["ocr"], errors["base"]["ocr"]) == (0.5, 0.0)
