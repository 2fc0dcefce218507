"""An expert of a language model by several processes: what one process makes, but for rounding."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor
from transformers import trainer as transformers_trainer

from paretune.planning.methods import build_plan
from paretune.recipes import load_config
from paretune.stages.map import mixture_of
from paretune.training.language.own_rows import OwnRows
from paretune.training.language.trainer import LanguageTrainer
from paretune.training.together.checks import check_together
from paretune.training.together.crew import ALONE, Crew
from paretune.types import ParetuneError, Stopped
from tests.language import language_recipe
from tests.together import assert_only_rounded, distance, in_crew, trained

# Two updates of 8 answers; with two processes each draws two of the four groups.
DRAWN = {"epochs": 2, "prompts_per_epoch": 4, "group_size": 4, "updates_per_epoch": 2, "micro_batch": 4,
         "learning_rate": 0.05}  # fmt: skip
GIVEN = {**DRAWN, "micro_batch": 1}
PAIRS = [{"prompt": f"{word} the window", "chosen": "yes yes", "rejected": f"no {word} no"}
         for word in ("fix", "clean", "tell", "wait")]  # fmt: skip
OBJECTIVES: dict[str, dict[str, Any]] = {
    "grpo": {"name": "grpo", "kl": 0.1},
    "dpo": {"name": "dpo"},
    "list_dpo": {"name": "list_dpo", "options": {"refresh_every": 3}},
    "ofs_dpo": {"name": "ofs_dpo", "options": {"every": 2}},
}


def _trainer(
    folder: Path, model: Path, crew: Crew, settings: Mapping[str, Any] | None = None, **changes: Any
) -> LanguageTrainer:
    """settings: keys of the recipe's model."""
    made = folder / f"made-{crew.rank}"
    made.mkdir(parents=True, exist_ok=True)
    objective = changes.setdefault("objective", OBJECTIVES["grpo"])
    train = {**(DRAWN if objective["name"] == "grpo" else GIVEN), **changes.pop("train", {})}
    rewards = {"yes": {"reward": f"{made}/rewards.py:yes"}}
    recipe = language_recipe(made, model, train=train, rewards=rewards, **changes)
    records = made / "records.jsonl"
    records.write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    files = [f"rewards.yes.{key}={records}" for key in ("prompts", "eval_prompts")]
    config = load_config(recipe, [*files, *(f"model.{k}={v}" for k, v in (settings or {}).items())])
    task = build_plan(config).methods[0].rounds[0].tasks[0]
    together = () if crew.size == 1 else (crew,)
    return LanguageTrainer(config, task, folder, mixture_of(config, task), None, "cpu", *together)


def _train(folder: Path, model: Path, crew: Crew, **changes: Any) -> dict[str, torch.Tensor]:
    return trained(_trainer(folder / f"of-{crew.size}", model, crew, **changes))


def _rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_the_number_of_processes_changes_rounding_alone(
    tiny_llama: Path, tmp_path: Path, objective: dict[str, Any]
) -> None:
    train = partial(_train, tmp_path, tiny_llama, objective=objective)
    (alone,) = in_crew(1, train, tmp_path)
    assert max(float(p.abs().max()) for n, p in alone.items() if "lora_B" in n) > 1e-2
    together = in_crew(2, train, tmp_path / "results")
    assert distance(together[0], together[1]) == 0.0
    assert_only_rounded(alone, together[0])
    one, two = (_rows(tmp_path / f"of-{size}") for size in (1, 2))
    assert len(two) == 2
    drawn = ("length", "diversity") if objective["name"] == "grpo" else ()
    for name in ("loss", "reward", "grad_norm", *drawn):
        assert [row[name] for row in two] == pytest.approx([row[name] for row in one], abs=1e-4)
    first, second = (
        {n: t.shape for n, t in load_file(folder / "epoch-0002/state.safetensors").items()}
        for folder in (tmp_path / "of-1/checkpoints", tmp_path / "of-2/checkpoints")
    )
    assert first == second


def _train_with_a_slow_end(folder: Path, model: Path, crew: Crew) -> dict[str, torch.Tensor]:
    plain = transformers_trainer.sort_checkpoints

    def late(**given: Any) -> list[str]:
        time.sleep(2)
        assert Path(given["output_dir"]).is_dir()
        return plain(**given)

    if not crew.leader:
        transformers_trainer.sort_checkpoints = late  # in a process that ends with this work
    return _train(folder, model, crew, objective=OBJECTIVES["dpo"])


def test_a_slower_process_still_has_its_folder_at_the_end(tiny_llama: Path, tmp_path: Path) -> None:
    """TRL looks into its folder once more after the last update; the leader, done before, removes it."""
    first, second = in_crew(2, partial(_train_with_a_slow_end, tmp_path, tiny_llama), tmp_path / "results")
    assert distance(first, second) == 0.0
    assert not (tmp_path / "of-2" / "trl").exists()


def _train_divided(folder: Path, model: Path, crew: Crew) -> Any:
    # Answers of very different length: a process that has written its own still helps with the others'.
    few = {"prompts_per_epoch": 2, "group_size": 2, "updates_per_epoch": 1, "micro_batch": 2}
    kind = "full" if crew.size > 1 else "none"
    settings = {"options.max_tokens": 24, "gradient_checkpointing": str(crew.size > 1).lower()}
    trainer = _trainer(folder / kind, model, crew, settings, executor={"shard": kind}, train=few, seed=1)
    made = trained(trainer)
    weight = trainer.policy.transformer.model.layers[0].mlp.up_proj.base_layer.weight
    return made, (weight.to_local() if isinstance(weight, DTensor) else weight).numel()


def test_a_divided_base_gives_the_same_adapter(tiny_llama: Path, tmp_path: Path) -> None:
    train = partial(_train_divided, tmp_path, tiny_llama)
    (alone, whole), *together = in_crew(1, train, tmp_path) + in_crew(2, train, tmp_path / "results")
    assert [held * 2 for _, held in together] == [whole, whole]
    for made, _ in together:
        assert_only_rounded(alone, made)


def _begin(folder: Path, model: Path, train: dict[str, Any], crew: Crew) -> None:
    with pytest.raises(Stopped):  # the leader alone is asked to stop
        trained(_trainer(folder, model, crew, train=train), stop=crew.leader)


def test_training_goes_on_with_another_number_of_processes(tiny_llama: Path, tmp_path: Path) -> None:
    train = {"ema_decay": 0.9, "lr_scheduler": "linear", "checkpoint_every": 2}
    in_crew(2, partial(_begin, tmp_path / "changed", tiny_llama, train), tmp_path / "results")
    assert [p.name for p in (tmp_path / "changed/checkpoints").iterdir()] == ["epoch-0001"]
    went_on = _trainer(tmp_path / "changed", tiny_llama, ALONE, train=train)
    whole = _trainer(tmp_path / "whole", tiny_llama, ALONE, train=train)
    assert_only_rounded(trained(went_on), trained(whole))
    assert_only_rounded(went_on.state.ema, whole.state.ema)
    assert [row["update"] for row in _rows(tmp_path / "changed")] == [1, 2]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_draws_its_rows_of_what_one_process_draws(rank: int) -> None:
    weights = torch.rand(6, 50).softmax(1)
    torch.manual_seed(3)
    whole = [torch.multinomial(weights, num_samples=1) for _ in range(4)]
    after = torch.rand(2)
    torch.manual_seed(3)
    with OwnRows(Crew(rank, 2)) as mode:
        own = [torch.multinomial(weights.chunk(2)[rank], num_samples=1) for _ in range(2 + rank)]
    mode.draw_until(4)  # as the other, whose answer is longer
    assert [rows.chunk(2)[rank].tolist() for rows in whole[: 2 + rank]] == [rows.tolist() for rows in own]
    assert torch.rand(2).tolist() == after.tolist()


REFUSED: dict[str, dict[str, Any]] = {
    "2 does not divide train.prompts_per_epoch: 3": {"train": {"prompts_per_epoch": 3}},
    "2 x train.updates_per_epoch: 3 does not divide the 4 samples": {
        "objective": {"name": "dpo"}, "train": {"updates_per_epoch": 3},
    },
    "objective grpo with these options trains an expert on one device": {
        "objective": {"name": "grpo", "options": {"use_vllm": True}},
    },
    "objective kto with these options trains an expert on one device": {"objective": {"name": "kto"}},
    "reference_decay changes the base, which executor.shard: full divides": {
        "objective": {"name": "list_dpo", "options": {"reference_decay": 0.9}}, "executor": {"shard": "full"},
    },
}  # fmt: skip


@pytest.mark.parametrize("line", REFUSED)
def test_what_cannot_be_dealt_is_told_first(tiny_llama: Path, tmp_path: Path, line: str) -> None:
    changes = {**REFUSED[line]}
    train = {"prompts_per_epoch": 4, **changes.pop("train", {})}
    executor = {"devices_per_expert": 2, **changes.pop("executor", {})}
    recipe = load_config(language_recipe(tmp_path, tiny_llama, train=train, executor=executor, **changes))
    with pytest.raises(ParetuneError, match=line) as told:
        check_together(recipe)
    assert "\n" not in str(told.value)
