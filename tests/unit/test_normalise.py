"""Rewards on one scale: literal values, the constants that are measured once, and what stays as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from paretune.config import RunConfig
from paretune.executors.base import Devices
from paretune.ops.scaling import Scaling, constants, scaling
from paretune.planning.methods import build_plan
from paretune.planning.words import described
from paretune.recipes import load_config
from paretune.stages.map import MapJob, expert_inputs, mixture_of
from paretune.stages.normalise import FOLDER, NormaliseJob, measure_base, normalised_means, scalings
from paretune.training.mixture import Mixture, PromptSet, Scores
from paretune.types import ParetuneError
from tests.conftest import tiny_recipe

CPU: Devices = ("cpu",)
ASKED = torch.tensor([0.0, 1.0, 2.0, 4.0, 6.0, -2.0])


def measured(*values: float) -> dict[str, Any]:
    return constants(torch.tensor(values))


def test_each_way_on_literal_scores() -> None:
    base = measured(0.0, 1.0, 2.0, 3.0, 4.0)
    assert (base["mean"], base["std"], base["samples"]) == (2.0, pytest.approx(2**0.5), 5)
    z = scaling("z", base)(ASKED)
    assert z.tolist() == pytest.approx([v / 2**0.5 for v in (-2, -1, 0, 2, 4, -4)])
    assert scaling("minmax", base)(ASKED).tolist() == pytest.approx([0, 0.25, 0.5, 1, 1.5, -0.5])
    assert scaling("rank", base)(ASKED).tolist() == pytest.approx([0, 0.25, 0.5, 1, 1.5, -0.5])


def test_rank_undoes_a_curve_keeps_the_order_and_gives_ties_their_middle() -> None:
    curved = scaling("rank", measured(*[float(i**3) for i in range(65)]))
    assert curved(torch.tensor([0.0, 8.0**3, 32.0**3, 64.0**3])).tolist() == [0, 0.125, 0.5, 1]
    many = scaling("rank", measured(*[0.0] * 64, *[1.0] * 64))
    low, half, high = many(torch.tensor([0.0, 0.5, 1.0])).tolist()
    assert 0.2 < low < 0.3 < half < 0.7 < high < 0.8
    values = torch.linspace(-1, 2, 301)
    assert bool((curved(values * 64**3).diff() >= 0).all())


def recipe(folder: Path, pipeline: Path, **ways: str) -> RunConfig:
    path = tiny_recipe(folder, pipeline, methods=["mapreduce", "morl_dr"], rounds=1)
    return load_config(path, [f"rewards.{name}.normalise={way}" for name, way in ways.items()])


def test_constants_are_measured_once_and_change_joint_experts_alone(tiny_sd3: Path, tmp_path: Path) -> None:
    plain, config = recipe(tmp_path, tiny_sd3), recipe(tmp_path, tiny_sd3, red="z")
    job = NormaliseJob(config, tmp_path / "run", "base")
    assert measure_base(job, lambda _: None, lambda: False, CPU) == FOLDER
    file = tmp_path / "run" / FOLDER / "constants.json"
    found = json.loads(file.read_text())
    assert list(found) == ["red"]
    assert found["red"]["samples"] == 2 * 3 * 4  # two sets of three prompts, four samples of each
    before = file.stat().st_mtime_ns
    measure_base(job, lambda _: None, lambda: True, CPU)  # finished: it neither stops nor writes
    assert file.stat().st_mtime_ns == before
    own = scalings(config, tmp_path / "run")["red"]
    assert own == Scaling("z", found["red"]["mean"], found["red"]["std"], tuple(found["red"]["quantiles"]))

    expert, joint = (build_plan(config).methods[i].rounds[0].tasks[0] for i in (0, 1))
    run = tmp_path / "run"
    assert mixture_of(config, expert, run).prompt_sets[0].scale is None
    assert [s.scale for s in mixture_of(config, joint, run).prompt_sets] == [own, None]
    digests = [[expert_inputs(MapJob(c, t, run, "b")) for t in (expert, joint)] for c in (plain, config)]
    assert digests[0][0] == digests[1][0]
    assert digests[0][1] != digests[1][1]
    assert described(plain)[-1] != described(config)[-1] == (
        "Where several rewards score an expert they are first normalised by the base's scores: red by z."
    )
    rows = [{"method": "base", "reward": "red", "value": own.mean + k * own.std} for k in (0, 2)]
    means = normalised_means(config, run, [*rows, {"method": "base", "reward": "dark", "value": 9.0}])
    assert means == {"base": {"red": pytest.approx(1.0)}}
    assert normalised_means(plain, run, rows) == {}

    file.write_text(json.dumps({"red": {**found["red"], "std": 0}}))
    with pytest.raises(ParetuneError, match=r"json is damaged: red\.std: .*; delete .* and resume"):
        scalings(config, run)


def test_constants_are_of_the_prompts_that_were_measured(
    tiny_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which are spread over a file, and not its first ones."""
    monkeypatch.setattr("paretune.stages.normalise.PROMPTS", 2)
    lines = [{"prompt": f"a red circle {i}"} for i in range(4)]

    def job(name: str, changed: int | None = None) -> NormaliseJob:
        rows = [{"prompt": "other"} if i == changed else row for i, row in enumerate(lines)]
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        path = tiny_recipe(tmp_path, tiny_sd3, methods=["mapreduce"], rounds=1)
        given = ["rewards.red.normalise=z", f"rewards.red.prompts={file}"]
        return NormaliseJob(load_config(path, given), tmp_path / "run", "base")

    assert measure_base(job("a"), lambda _: None, lambda: False, CPU) == FOLDER
    assert measure_base(job("b", changed=1), lambda _: None, lambda: True, CPU) == FOLDER
    with pytest.raises(ParetuneError, match="was made from other inputs"):
        measure_base(job("c", changed=2), lambda _: None, lambda: True, CPU)


def test_a_scale_comes_before_the_sign_of_a_cost() -> None:
    class Cost:
        name, range, higher_is_better = "cost", (0.0, 9.0), False

    own = PromptSet(Cost(), [], scale=Scaling("minmax", 0, 1, (1.0, 3.0)))  # type: ignore[arg-type]
    plain = PromptSet(Cost(), [])  # type: ignore[arg-type]
    raw = torch.tensor([[[1.0, 3.0]], [[1.0, 3.0]]])
    scores = Scores(raw, torch.ones(2, 1, dtype=torch.bool), torch.ones(2, 1, dtype=torch.bool))
    mixture = Mixture.__new__(Mixture)
    mixture.prompt_sets = (own, plain)
    assert mixture.oriented(scores).tolist() == [[[0.0, -1.0]], [[-1.0, -3.0]]]


def test_a_base_that_always_scores_the_same_is_one_line(tiny_sd3: Path, tmp_path: Path) -> None:
    config = recipe(tmp_path, tiny_sd3, dark="rank")
    (tmp_path / "rewards.py").write_text(
        "def red(images, prompts):\n    return images.flatten(1).mean(1).tolist()\n"
        "def dark(images, prompts):\n    return [0.25] * len(prompts)\n"
    )
    with pytest.raises(ParetuneError) as caught:
        measure_base(NormaliseJob(config, tmp_path / "run", "b"), lambda _: None, lambda: False, CPU)
    assert str(caught.value) == (
        "rewards.dark.normalise: all 24 samples of the base score 0.25, which gives no scale; "
        "leave the key out"
    )
