"""`paretune plan --gpus N`: who trains where, and what that costs, by arithmetic that can be done by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paretune.commands.plan_recipe import plan_recipe
from paretune.models.adapter_sizes import adapter_numbers
from paretune.models.loading import open_flow_policy
from paretune.models.lora import attach_policy
from paretune.planning.scale import Scale
from paretune.recipes import load_config
from paretune.types import ParetuneError
from tests.conftest import tiny_recipe
from tests.language import make_gpt2


def _planned(recipe: str | Path, gpus: int, *overrides: str) -> tuple[Any, Scale]:
    planned = plan_recipe(str(recipe), overrides, False, False, lambda line: None, gpus)
    assert planned.scale is not None
    return planned.costs, planned.scale


def test_an_adapter_is_counted_without_its_model(tiny_sd3: Path, tmp_path: Path) -> None:
    config = load_config(tiny_recipe(tmp_path, tiny_sd3))
    policy = open_flow_policy(config.model)
    whole = sum(p.numel() for p in policy.transformer.parameters())
    parameters = attach_policy(policy.transformer, config.adapter, policy.targets, 0)
    assert adapter_numbers(config) == sum(p.numel() for p in parameters.values())
    assert adapter_numbers(load_config(tmp_path / "recipe.yaml", ["lora=null"])) == whole


def test_three_experts_of_48_groups_use_72_of_96_gpus() -> None:
    costs, scale = _planned("sd35-medium", 96)
    assert (scale.side_by_side, scale.each, scale.busy) == (3, 24, 72)  # an update has 24 groups
    assert scale.hours["mapreduce"] == pytest.approx(costs.hours["mapreduce"] / 72)
    assert scale.adapter_mb == pytest.approx(75.2, abs=0.1)
    assert scale.round_mb == pytest.approx(6 * scale.adapter_mb)
    assert scale.update_mb == pytest.approx(2 * 23 / 24 * scale.adapter_mb)
    assert scale.gather_gb == 0


@pytest.mark.parametrize("reduce", ["distil", "search"])
def test_one_gpu_alone_does_reduce(reduce: str) -> None:
    rule = ["reduce.method=distil"] if reduce == "distil" else ["reduce.step=search", "reduce.prompts=200"]
    given = [*rule, "methods=[mapreduce]"]
    (_, plain), (costs, one), (_, three) = (
        _planned("quickstart", gpus, *flags)
        for gpus, flags in ((3, ["methods=[mapreduce]"]), (1, given), (3, given))
    )
    alone = costs.alone["mapreduce"]
    assert 0 < alone < costs.hours["mapreduce"]
    assert one.hours["mapreduce"] == pytest.approx(costs.hours["mapreduce"])
    assert three.hours["mapreduce"] == pytest.approx((costs.hours["mapreduce"] - alone) / 3 + alone)
    assert three.hours["mapreduce"] == pytest.approx(plain.hours["mapreduce"] + alone)


def test_fewer_gpus_than_experts_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paretune.planning.scale.adapter_numbers", lambda config: 10**6)
    costs, scale = _planned("sd35-medium", 2)
    assert (scale.side_by_side, scale.each, scale.busy) == (2, 1, 2)
    assert scale.hours["mapreduce"] == pytest.approx(costs.hours["mapreduce"] * 2 / 3)
    assert scale.update_mb == 0


def test_a_divided_base_takes_a_part_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paretune.planning.scale.adapter_numbers", lambda config: 10**6)
    _, whole = _planned("qwen-image", 24, "executor.devices_per_expert=8")
    _, parts = _planned("qwen-image", 24, "executor.devices_per_expert=8", "executor.shard=full")
    base = 20.43 * 2  # billions of parameters in 16 bits
    assert whole.memory_gb - parts.memory_gb == pytest.approx(base * (1 - 1 / 8 - 2 / 60))
    assert parts.gather_gb == pytest.approx(base * 7 / 8)


def test_all_weights_hold_their_gradients_moments_and_copies(tiny_sd3: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, tiny_sd3)
    adapter, _ = _planned(recipe, 1)
    whole, _ = _planned(recipe, 1, "lora=null")
    anchored, _ = _planned(recipe, 1, "lora=null", "objective.kl=0.1", "train.ema_decay=0.9")
    weights = whole.parameters * 4 / 1e9
    assert whole.memory_gb - adapter.memory_gb == pytest.approx(4 * weights)
    assert anchored.memory_gb - whole.memory_gb == pytest.approx(2 * weights)


def test_what_cannot_be_planned_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ParetuneError, match="--gpus 4: an expert takes 8"):
        _planned("sd35-medium", 4, "executor.devices_per_expert=8")
    odd = make_gpt2(tmp_path)
    (odd / "config.json").write_text('{"architectures": ["OddForCausalLM"], "model_type": "odd"}')
    with pytest.raises(ParetuneError, match="plan --gpus knows the sizes of models in a folder or"):
        _planned("llama2-7b", 4, f"model.path={odd}")
    with pytest.raises(ParetuneError, match=r"3 does not divide train\.prompts_per_epoch: 32"):
        _planned("llama2-7b", 4, "executor.devices_per_expert=3")
    with pytest.raises(ParetuneError, match="--gpus 0: a run has one or more"):
        _planned("sd35-medium", 0)
