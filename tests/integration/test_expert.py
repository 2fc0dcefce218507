"""The trainer on a tiny pipeline: every objective learns from something and leaves the ratio at 1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from paretune.planning.methods import build_plan
from paretune.planning.plan import ExpertTask
from paretune.recipes import load_config
from paretune.records.manifest import write_manifest
from paretune.rewards.base import FunctionReward
from paretune.training.expert import ExpertTrainer, Stopped
from paretune.training.mixture import Mixture, PromptSet
from paretune.types import ParetuneError, Prompt
from tests.conftest import tiny_recipe
from tests.together import assert_only_rounded

PROMPTS = [Prompt("a red circle"), Prompt("two blue squares"), Prompt("a sign saying kite")]


def _red(images: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
    return images[:, 0].mean((1, 2))


def _trainer(
    folder: Path, pipeline: Path, reward: object = _red, parents: object = None, **changes: object
) -> ExpertTrainer:
    config = load_config(tiny_recipe(folder, pipeline, **changes))
    task = build_plan(config).methods[0].rounds[0].tasks[0]
    own = FunctionReward(reward, "red")  # type: ignore[arg-type]
    mixture = Mixture([PromptSet(own, PROMPTS, kl=config.objective.kl)])
    return ExpertTrainer(config, task, folder, mixture, parents, "cpu")  # type: ignore[arg-type]


def _values(trainer: ExpertTrainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.state.parameters.values()])


OBJECTIVES = {
    "all steps": {"name": "flow_grpo"},
    "window": {"name": "flow_grpo", "options": {"window": [0, 1]}, "shared_noise": True},
    "cps": {"name": "flow_grpo", "options": {"sampler": "cps"}},
    "guard": {"name": "flow_grpo", "options": {"ratio": "guard"}},
    "global std": {"name": "flow_grpo", "advantage_std": "global"},
    "awm": {"name": "awm", "kl": 0.1},
    "nft": {"name": "nft"},
    "sft": {"name": "sft"},
    "nft, averaged sampler, anchored": {"name": "nft", "options": {"old_decay": 0.5}, "kl": 0.1},
}


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_ratio_is_one_on_the_first_pass_and_the_adapter_moves(
    tiny_sd3: Path, tmp_path: Path, objective: dict[str, object]
) -> None:
    one_update = {"updates_per_epoch": 1}
    trainer = _trainer(tmp_path, tiny_sd3, objective=objective, train=one_update)
    before = _values(trainer)
    row = trainer.epoch()
    assert row["ratio"] == pytest.approx(1.0, abs=1e-5)
    assert row["kept_groups"] == 2
    assert (_values(trainer) - before).abs().max() > 0
    assert torch.isfinite(_values(trainer)).all()


def test_groups_without_advantage_are_dropped(tiny_sd3: Path, tmp_path: Path) -> None:
    def constant(images: torch.Tensor, prompts: Sequence[Prompt]) -> list[float]:
        return [0.5] * len(images)

    trainer = _trainer(tmp_path, tiny_sd3, constant)
    before = _values(trainer)
    row = trainer.epoch()
    assert row["kept_groups"] == 0
    assert torch.equal(_values(trainer), before)

    def one_prompt_differs(images: torch.Tensor, prompts: Sequence[Prompt]) -> list[float]:
        texts = [p.text for p in prompts]
        return [float(i) if t == texts[0] else 0.5 for i, t in enumerate(texts)]

    trainer = _trainer(tmp_path / "mixed", tiny_sd3, one_prompt_differs)
    assert trainer.epoch()["kept_groups"] == 1


def test_only_the_best_and_the_worst_of_a_group_are_trained_on(tiny_sd3: Path, tmp_path: Path) -> None:
    train = {"group_size": 6, "keep": 2, "updates_per_epoch": 1}
    trainer = _trainer(tmp_path, tiny_sd3, train=train)
    row = trainer.epoch()
    kept = trainer.objective.batch.advantages.view(-1, 2)  # type: ignore[attr-defined]
    assert len(kept) == row["kept_groups"] == 2
    assert (kept.amax(1) > 0).all()
    assert (kept.amin(1) < 0).all()


def test_a_time_shift_raises_the_noise_levels(tiny_sd3: Path, tmp_path: Path) -> None:
    plain = _trainer(tmp_path / "plain", tiny_sd3)
    shifted = _trainer(tmp_path / "shifted", tiny_sd3, objective={"options": {"time_shift": 3.0}})
    for trainer in (plain, shifted):
        trainer.epoch()
    s, moved = (t.objective.sigmas for t in (plain, shifted))  # type: ignore[attr-defined]
    inside = s > 0.1  # below, both are clamped to the least level
    torch.testing.assert_close(moved[inside], (3 * s / (1 + 2 * s))[inside])


def test_samples_of_a_group_get_one_noise_and_stay_together(tiny_sd3: Path, tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, tiny_sd3, train={"updates_per_epoch": 2})
    seen: list[torch.Tensor] = []
    step = trainer._step
    trainer._step = lambda part: seen.append(part) or step(part)  # type: ignore[method-assign]
    trainer.epoch()
    groups = trainer.objective.batch.group  # type: ignore[attr-defined]
    sigmas, noise = trainer.objective.sigmas, trainer.objective.noise  # type: ignore[attr-defined]
    for number in groups.unique():
        own = groups == number
        assert (sigmas[own] == sigmas[own][:1]).all()
        assert (noise[:, own] == noise[:, own][:, :1]).all()
    assert [groups[part].unique().numel() for part in seen] == [1, 1]
    assert sorted(torch.cat(seen).tolist()) == list(range(len(groups)))


def test_micro_batches_accumulate_to_the_whole_batch(tiny_sd3: Path, tmp_path: Path) -> None:
    values = []
    for size in (2, 6):
        train = {"micro_batch": size, "updates_per_epoch": 1, "learning_rate": 1e-2}
        trainer = _trainer(tmp_path / str(size), tiny_sd3, train=train)
        trainer.epoch()
        values.append({name: p.detach() for name, p in trainer.state.parameters.items()})
    assert_only_rounded(*values)


def test_how_rollouts_are_cut_into_micro_batches_changes_no_draw(tiny_sd3: Path, tmp_path: Path) -> None:
    drawn = []
    for size in (2, 6):
        objective = {"name": "flow_grpo", "options": {"noise_level": 0.7}}
        trainer = _trainer(
            tmp_path / str(size), tiny_sd3, train={"micro_batch": size}, objective=objective
        )
        drawn.append(trainer.rollout(torch.Generator().manual_seed(0)).trajectories.clean)
    torch.testing.assert_close(drawn[0], drawn[1], atol=1e-5, rtol=1e-4)


def test_anchor_base_and_anchor_round_differ_once_there_are_parents(tiny_sd3: Path, tmp_path: Path) -> None:
    from paretune.ops.lowrank import LowRank

    generator = torch.Generator().manual_seed(0)
    parents = {
        "transformer_blocks.0.attn.to_q": LowRank(
            torch.randn(16, 2, generator=generator), torch.randn(2, 16, generator=generator)
        )
    }
    kls = {}
    for anchor in ("round", "base"):
        objective = {"name": "nft", "kl": 0.1, "anchor": anchor}
        trainer = _trainer(
            tmp_path / anchor, tiny_sd3, parents=parents, objective=objective, train={"updates_per_epoch": 1}
        )
        kls[anchor] = trainer.epoch()["kl"]
    assert kls["round"] == pytest.approx(0.0, abs=1e-10)
    assert kls["base"] > 1e-6


def test_average_lags_behind_the_trained_adapter(tiny_sd3: Path, tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, tiny_sd3, train={"ema_decay": 0.9})
    start = {n: p.detach().clone() for n, p in trainer.state.parameters.items()}
    trainer.epoch()
    name = next(n for n in start if ".lora_B." in n)
    now, average = trainer.state.parameters[name].detach(), trainer.state.ema[name]
    assert 0 < (average - start[name]).norm() < (now - start[name]).norm()


def test_the_learning_rate_falls_over_the_epochs_of_both_rounds(tiny_sd3: Path, tmp_path: Path) -> None:
    settings = {"epochs": 4, "learning_rate": 1e-3, "lr_scheduler": "linear"}
    trainer = _trainer(tmp_path, tiny_sd3, train=settings)
    rates = []
    for _ in range(4):
        trainer.epoch()
        rates.append(trainer.state.optimiser.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-3, 0.875e-3, 0.75e-3, 0.625e-3])  # this is the first of two rounds


@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_the_soups_expert_that_goes_on_from_round_one_is_one_trained_alone(
    tiny_sd3: Path, tmp_path: Path, schedule: str
) -> None:
    train = {"epochs": 2, "ema_decay": 0.9, "lr_scheduler": schedule}
    config = load_config(tiny_recipe(tmp_path, tiny_sd3, train=train))
    mixture = Mixture([PromptSet(FunctionReward(_red, "red"), PROMPTS, kl=config.objective.kl)])

    def trained(task: ExpertTask, folder: Path, begun: Path | None = None) -> ExpertTrainer:
        trainer = ExpertTrainer(config, task, folder, mixture, None, "cpu")
        trainer.resume(folder.name, begun)
        trainer.run(lambda event: None, lambda: False)
        write_manifest(folder, "expert", folder.name, [])
        return trainer

    plans = {m.name: m.rounds[0].tasks[0] for m in build_plan(config).methods}
    soup = plans["rewarded_soup"]
    assert (plans["mapreduce"].epochs, soup.epochs) == (2, 4)
    trained(plans["mapreduce"], tmp_path / "round")
    both = trained(soup, tmp_path / "both", tmp_path / "round"), trained(soup, tmp_path / "alone")
    assert torch.equal(*map(_values, both))
    assert all(torch.equal(both[0].state.ema[n], both[1].state.ema[n]) for n in both[0].state.ema)


def test_bfloat16_autocast_keeps_float32_adapters(tiny_sd3: Path, tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, tiny_sd3, train={"autocast": True}, model={"dtype": "bfloat16"})
    assert trainer.policy.transformer.dtype == torch.bfloat16
    trainer.epoch()
    assert {p.dtype for p in trainer.state.parameters.values()} == {torch.float32}
    assert torch.isfinite(_values(trainer)).all()


def test_guidance_trains_with_the_empty_prompt(tiny_sd3: Path, tmp_path: Path) -> None:
    objective = {"name": "flow_grpo", "window": [0, 1]}
    trainer = _trainer(tmp_path, tiny_sd3, objective=objective, model={"guidance_scale": 3.0})
    assert trainer.conditions.negative_embeds is not None
    assert trainer.epoch()["kept_groups"] == 2


def test_going_on_from_a_checkpoint_is_bit_identical(tiny_sd3: Path, tmp_path: Path) -> None:
    settings = {"epochs": 4, "ema_decay": 0.9, "lr_scheduler": "linear"}
    whole = _trainer(tmp_path / "whole", tiny_sd3, train=settings)
    whole.run(lambda event: None, lambda: False)
    first = _trainer(tmp_path / "parts", tiny_sd3, train=settings)
    seen: list[object] = []
    with pytest.raises(Stopped):
        first.run(seen.append, lambda: len(seen) >= 2)
    second = _trainer(tmp_path / "parts", tiny_sd3, train=settings)
    second.resume("", None)
    assert second.state.epoch == 2
    second.run(lambda event: None, lambda: False)
    assert torch.equal(_values(second), _values(whole))
    assert all(torch.equal(second.state.ema[n], whole.state.ema[n]) for n in whole.state.ema)


def _begun(tiny_sd3: Path, folder: Path) -> Path:
    """The checkpoint after one of two epochs, of inputs called "these"."""
    trainer = _trainer(folder, tiny_sd3)
    trainer.state.inputs = "these"
    with pytest.raises(Stopped):
        trainer.run(lambda event: None, lambda: True)
    return folder / "checkpoints" / "epoch-0001"


@pytest.mark.parametrize("damage", ["epoch", "list", "weights", "none"])
def test_a_checkpoint_of_other_inputs_or_with_other_bytes_is_refused(
    tiny_sd3: Path, tmp_path: Path, damage: str
) -> None:
    checkpoint = _begun(tiny_sd3, tmp_path)
    position, weights = checkpoint / "position.json", checkpoint / "state.safetensors"
    if damage == "epoch":
        position.write_text(position.read_text().replace('"epoch": 1', '"epoch": 0'))
    elif damage == "list":
        position.write_text("[]")
    elif damage == "weights":
        weights.write_bytes(weights.read_bytes()[:-1])
    inputs, told = ("those", "made of other inputs") if damage == "none" else ("these", "changed or damaged")
    with pytest.raises(ParetuneError, match=told):
        _trainer(tmp_path, tiny_sd3).resume(inputs, None)
    if damage == "none":
        again = _trainer(tmp_path, tiny_sd3)
        again.resume("these", None)
        assert again.state.epoch == 1
