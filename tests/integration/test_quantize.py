"""Experts on a base in eight bits: what is quantised, what is not, and that the expert learns."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from paretune.models.facts import check_options
from paretune.models.loading import open_policy
from paretune.models.quantize import in_a_block, quantize
from paretune.ops.lowrank import LowRank
from paretune.planning.estimate import estimate
from paretune.planning.methods import build_plan
from paretune.planning.peak import measure_update
from paretune.planning.plan import ExpertTask
from paretune.recipes import load_config
from paretune.rewards.base import FunctionReward
from paretune.training.expert import ExpertTrainer
from paretune.training.mixture import Mixture, PromptSet
from paretune.types import ParetuneError, Prompt
from tests.conftest import tiny_recipe
from tests.language import language_recipe

SIZES: dict[str, dict[str, Any]] = {
    "tiny_sd3": {},
    "tiny_flux": {"height": 16, "width": 16, "options": {"max_sequence_length": 16}},
    "tiny_hunyuan": {"height": 16, "width": 16, "options": {"frames": 5, "max_sequence_length": 16}},
}
LAYER = "transformer_blocks.0.attn.to_q"


def _config(folder: Path, pipeline: Path, model: dict[str, Any], **changes: Any) -> Any:
    model = {**model, "options": {**model.get("options", {}), "quantize": "int8"}}
    return load_config(tiny_recipe(folder, pipeline, model=model, **changes))


def _trainer(config: Any, folder: Path, parents: dict[str, LowRank] | None = None) -> ExpertTrainer:
    task: ExpertTask = build_plan(config).methods[0].rounds[0].tasks[0]
    red = FunctionReward(lambda x, prompts: x.select(-3, 0).flatten(1).mean(1), "red")
    mixture = Mixture([PromptSet(red, [Prompt("a red circle"), Prompt("a kite")], kl=config.objective.kl)])
    return ExpertTrainer(config, task, folder, mixture, parents, "cpu")


def _kept(module: nn.Module) -> Any:
    """A layer's weight, below the adapter where it has one."""
    weight: Any = getattr(module, "base_layer", module).weight
    return weight


@pytest.mark.parametrize("family", SIZES)
def test_an_expert_learns_on_a_base_in_eight_bits(
    family: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    pipeline = request.getfixturevalue(family)
    trainer = _trainer(_config(tmp_path, pipeline, SIZES[family]), tmp_path)
    transformer, whole = trainer.policy.transformer, open_policy(trainer.config.model).transformer
    linear = {name for name, m in whole.named_modules() if isinstance(m, nn.Linear)}
    eight = {name for name in linear if hasattr(_kept(transformer.get_submodule(name)), "qdata")}
    assert LAYER in eight
    assert "proj_out" in linear - eight
    for name in eight:
        weight, kept = whole.get_submodule(name).weight, _kept(transformer.get_submodule(name))
        assert kept.qdata.dtype == torch.int8
        step = weight.abs().amax(1, keepdim=True) / 127
        assert ((kept.dequantize() - weight).abs() <= 0.51 * step + 1e-7).all()
    before = [p.detach().clone() for p in trainer.state.parameters.values()]
    row = trainer.epoch()
    assert row["ratio"] == pytest.approx(1.0, abs=1e-5)
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.state.parameters.values(), strict=True))
    assert all(torch.isfinite(p).all() for p in trainer.state.parameters.values())


@pytest.mark.parametrize("anchor", ["round", "base"])
def test_earlier_rounds_are_folded_in_full_precision_or_stay_apart(
    anchor: str, tiny_sd3: Path, tmp_path: Path
) -> None:
    config = _config(tmp_path, tiny_sd3, {}, objective={"kl": 0.1, "anchor": anchor})
    delta = LowRank(torch.randn(16, 1), torch.randn(1, 16))
    trainer = _trainer(config, tmp_path, {LAYER: delta})
    weight = open_policy(config.model).transformer.get_submodule(LAYER).weight
    meant = weight + (delta.dense() if anchor == "round" else 0)
    kept = _kept(trainer.policy.transformer.get_submodule(LAYER)).dequantize()
    torch.testing.assert_close(kept, meant, rtol=0, atol=float(meant.abs().max()) / 127)
    assert all(torch.isfinite(p).all() for p in trainer.state.parameters.values())
    trainer.epoch()


def test_a_sample_moves_by_little(tiny_flux: Path, tmp_path: Path) -> None:
    config = _config(tmp_path, tiny_flux, SIZES["tiny_flux"])
    policy = open_policy(config.model)
    conditions = policy.encode(["a red circle"], False)
    x, sigma = policy.initial_noise(1, torch.Generator().manual_seed(0)), torch.tensor([0.5])
    with torch.no_grad():
        whole = policy.velocity(x, sigma, conditions, 1.0)
        quantize(policy)
        eight = policy.velocity(x, sigma, conditions, 1.0)
    assert 0 < (eight - whole).norm() / whole.norm() < 0.02


def test_only_linear_layers_of_numbered_blocks() -> None:
    layer = nn.Linear(2, 2)
    assert in_a_block(layer, "single_transformer_blocks.12.attn.to_k")
    assert not in_a_block(layer, "proj_out")
    assert not in_a_block(nn.LayerNorm(2), "transformer_blocks.0.norm")


def test_the_estimate_and_the_measurement_know_it(tiny_flux: Path, tmp_path: Path) -> None:
    eight = _config(tmp_path, tiny_flux, SIZES["tiny_flux"])
    whole = load_config(tiny_recipe(tmp_path / "whole", tiny_flux, model=SIZES["tiny_flux"]))
    least, most = (estimate(c, build_plan(c), "cpu") for c in (eight, whole))
    assert least.parameters is not None
    assert least.memory_gb is not None
    assert most.memory_gb is not None
    assert most.memory_gb - least.memory_gb == pytest.approx(3 * least.parameters / 1e9)
    assert measure_update(eight, "cpu").samples == 6


def test_without_torchao_and_for_a_language_model_it_is_one_line(
    tiny_sd3: Path, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _config(tmp_path, tiny_sd3, {})
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(ParetuneError, match=r"model\.options\.quantize needs torchao: pip install"):
        _trainer(config, tmp_path)
    text = load_config(language_recipe(tmp_path / "text", tiny_llama), ["model.options.quantize=int8"])
    with pytest.raises(ParetuneError, match=r"model\.options.*quantize"):
        check_options(text.model)
