"""An expert may have a learning rate of its own; everything else of the recipe stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from paretune.cli.tables import _own_rates
from paretune.commands.tune import Setting
from paretune.config import RunConfig
from paretune.planning.methods import build_plan
from paretune.recipes import find_recipe, load_config
from paretune.stages.map import MapJob, expert_inputs
from paretune.types import ParetuneError


def smoke(*changes: str) -> RunConfig:
    return load_config(find_recipe("smoke"), ["train.learning_rate=0.004", *changes])


def test_the_expert_of_one_reward_takes_its_own_rate() -> None:
    config = smoke("rewards.ocr.learning_rate=0.001")
    assert config.for_expert(["ocr"]).train.learning_rate == 0.001
    assert config.for_expert(["geneval"]) is config
    joint = list(config.rewards)
    assert config.for_expert(joint).train.learning_rate == 0.004
    assert config.for_expert(["ocr"]).rewards == config.rewards


def test_the_expert_is_the_one_that_the_rate_of_all_makes(tmp_path: Path) -> None:
    own, every = smoke("rewards.ocr.learning_rate=0.001"), smoke("train.learning_rate=0.001")
    (task,) = (t for t in build_plan(own).methods[0].rounds[0].tasks if t.reward == "ocr")
    inputs = [expert_inputs(MapJob(c.for_expert(task.rewards), task, tmp_path, "b")) for c in (own, every)]
    assert inputs[0] == inputs[1] != expert_inputs(MapJob(smoke(), task, tmp_path, "b"))


def test_tune_scales_the_own_rates_too() -> None:
    made = Setting(0.5, 1).of(smoke("rewards.ocr.learning_rate=0.001"))
    assert made.train.learning_rate == 0.002
    assert made.rewards["ocr"].learning_rate == 0.0005


def test_the_plan_names_the_own_rates() -> None:
    assert _own_rates(smoke("rewards.ocr.learning_rate=0.001")) == " (ocr 0.001)"
    assert _own_rates(smoke()) == ""


def test_a_rate_that_cannot_be() -> None:
    with pytest.raises(ParetuneError, match=r"rewards\.ocr\.learning_rate"):
        smoke("rewards.ocr.learning_rate=0")
