"""A float16 base: adapters stay float32, losses are scaled, overflow is one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from paretune.config import ModelConfig
from paretune.models.facts import check_options
from paretune.models.loading import open_policy
from paretune.planning.estimate import estimate
from paretune.planning.methods import build_plan
from paretune.recipes import load_config
from paretune.rewards.base import FunctionReward
from paretune.training.expert import ExpertTrainer, Stopped
from paretune.training.loss_scale import FIRST_SCALE, take_step
from paretune.training.mixture import Mixture, PromptSet
from paretune.types import ParetuneError, Prompt
from tests.conftest import tiny_recipe
from tests.language import language_recipe


def _trainer(folder: Path, pipeline: Path, **changes: Any) -> ExpertTrainer:
    changes["model"] = {"dtype": "float16", **changes.get("model", {})}
    config = load_config(tiny_recipe(folder / "recipe", pipeline, **changes))
    red = FunctionReward(lambda x, prompts: x.select(-3, 0).flatten(1).mean(1), "red")
    mixture = Mixture([PromptSet(red, [Prompt("a red circle"), Prompt("a kite")], kl=config.objective.kl)])
    task = build_plan(config).methods[0].rounds[0].tasks[0]
    return ExpertTrainer(config, task, folder, mixture, None, "cpu")


def _values(trainer: ExpertTrainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.state.parameters.values()])


@pytest.mark.parametrize("autocast", [False, True])
def test_adapters_and_autoencoder_stay_in_float32(tiny_sd3: Path, tmp_path: Path, autocast: bool) -> None:
    trainer = _trainer(tmp_path, tiny_sd3, train={"autocast": autocast})
    policy: Any = trainer.policy
    assert policy.transformer.dtype == torch.float16
    assert policy.vae.dtype == torch.float32
    seen = list[torch.dtype]()
    policy.transformer.proj_out.register_forward_hook(lambda module, given, out: seen.append(out.dtype))
    row = trainer.epoch()
    assert set(seen) == {torch.float16}  # bfloat16 autocast would give bfloat16
    assert row["ratio"] == pytest.approx(1.0, abs=1e-3)
    assert {p.dtype for p in trainer.state.parameters.values()} == {torch.float32}
    assert torch.isfinite(_values(trainer)).all()


def _gradient(folder: Path, pipeline: Path, dtype: str, scaled: bool) -> torch.Tensor:
    """The gradient of an epoch's first update, with the loss divided by the size of a real sample."""
    trainer = _trainer(folder, pipeline, model={"dtype": dtype}, objective={"name": "flow_grpo"},
                       train={"updates_per_epoch": 1})  # fmt: skip
    loss, found = trainer.objective.loss, list[torch.Tensor]()

    def small(index: torch.Tensor, slot: int) -> Any:
        whole = loss(index, slot)
        return type(whole)(whole.total / 2**12)

    def keep(state: Any, *rest: Any) -> Any:
        facts = trainer.objective.accumulate(torch.arange(2))
        state.scaler.unscale_(state.optimiser)
        found.append(torch.cat([p.grad.flatten() for p in state.parameters.values()]))  # type: ignore[union-attr]
        return {**facts, "grad_norm": 0.0}

    trainer.objective.loss = small  # type: ignore[method-assign]
    if not scaled:
        trainer.state.scaler = torch.amp.GradScaler("cpu", enabled=False)
        object.__setattr__(trainer.objective.setting, "scaled", lambda loss: loss)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("paretune.training.expert.take_step", keep)
        trainer.epoch()
    return found[0]


def test_small_gradients_vanish_in_float16_unless_the_loss_is_scaled(tiny_sd3: Path, tmp_path: Path) -> None:
    exact = _gradient(tmp_path / "exact", tiny_sd3, "float32", scaled=True)
    scaled = _gradient(tmp_path / "scaled", tiny_sd3, "float16", scaled=True)
    plain = _gradient(tmp_path / "plain", tiny_sd3, "float16", scaled=False)
    assert (scaled - exact).norm() < 0.05 * exact.norm()
    assert (plain - exact).norm() > 0.5 * exact.norm()


def test_an_overflowing_gradient_is_taken_again_with_a_smaller_scale(tiny_sd3: Path, tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, tiny_sd3)
    state, calls = trainer.state, list[float]()
    parameter = next(iter(state.parameters.values()))

    def accumulate() -> dict[str, float]:
        calls.append(state.scaler.get_scale())
        loss = 16 * parameter.half().sum()
        state.scaler.scale(loss).backward()
        return {"loss": 1.0}

    before = parameter.detach().clone()
    facts = take_step(state, accumulate, 1.0)
    assert calls == [FIRST_SCALE / 2**n for n in range(6)]  # 16 * 2^11 is the first below 65504
    assert facts["loss"] == 1.0
    assert facts["grad_norm"] == pytest.approx(16 * parameter.numel() ** 0.5, rel=1e-3)
    assert not torch.equal(parameter, before)
    with pytest.raises(ParetuneError, match=r"^model.dtype: float16 is too narrow.* its gradients overflow"):
        take_step(state, lambda: (state.scaler.scale(parameter.sum() * torch.inf).backward(), {})[1], 1.0)


def test_going_on_keeps_the_scale(tiny_sd3: Path, tmp_path: Path) -> None:
    first, second = (_trainer(tmp_path, tiny_sd3, train={"epochs": 2}) for _ in range(2))
    first.state.scaler.scale(torch.ones(1))
    first.state.scaler.update(2.0**9)
    with pytest.raises(Stopped):
        first.run(lambda event: None, lambda: True)
    second.resume("", None)
    assert second.state.scaler.state_dict() == first.state.scaler.state_dict()
    assert second.state.scaler.get_scale() == 2.0**9


def test_overflow_is_one_line(tiny_sd3: Path) -> None:
    config = ModelConfig.model_validate({"path": str(tiny_sd3), "dtype": "float16"})
    policy: Any = open_policy(config)
    with pytest.raises(ParetuneError, match=r"^model\.dtype: float16 .*the samples hold NaN or infinite"):
        policy.decode(torch.full((1, *policy.latent_shape), torch.inf))
    policy.embed = lambda texts: {"embeds": torch.full((1, 2, 4), torch.nan), "pooled": torch.zeros(1, 4)}
    with pytest.raises(ParetuneError, match=r"the prompts' embeddings hold NaN or infinite"):
        policy.encode(["a"], False)


def test_int8_and_the_plan(tiny_sd3: Path, tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, tiny_sd3, model={"options": {"quantize": "int8"}})
    row = trainer.epoch()
    assert row["ratio"] == pytest.approx(1.0, abs=1e-3)
    memory = {}
    for dtype in ("float32", "bfloat16", "float16"):
        config = load_config(tiny_recipe(tmp_path / dtype, tiny_sd3, model={"dtype": dtype}))
        memory[dtype] = estimate(config, build_plan(config), "cpu").memory_gb
    assert memory["float16"] == memory["bfloat16"] < memory["float32"]


def test_language_models_refuse_float16(tiny_llama: Path, tmp_path: Path) -> None:
    config = load_config(language_recipe(tmp_path, tiny_llama))
    model = config.model.model_copy(update={"dtype": "float16"})
    with pytest.raises(ParetuneError, match=r"^model.dtype: float16 is no dtype of causal_lm models; give"):
        check_options(model)
