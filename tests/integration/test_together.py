"""One expert by several processes: the same adapter as one process makes, but for rounding."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor

from paretune.planning.methods import build_plan
from paretune.recipes import load_config
from paretune.rewards.base import FunctionReward
from paretune.stages.claim import check
from paretune.training.expert import ExpertTrainer
from paretune.training.mixture import Mixture, PromptSet
from paretune.training.together.crew import ALONE, Crew, Place
from paretune.training.together.launch import run_together, take_part
from paretune.training.together.shard import blocks_of
from paretune.training.together.updates import accumulate_together, shares
from paretune.types import ParetuneError, Prompt, Stopped, Unfit
from tests.conftest import tiny_recipe
from tests.meeting import meet
from tests.together import assert_only_rounded, distance, in_crew, trained

PROMPTS = [Prompt("a red circle"), Prompt("two blue squares"), Prompt("a sign saying kite")]
# Three groups in two updates: a process of two has no group of the second, of three none in either.
TRAIN = {"epochs": 1, "prompts_per_epoch": 3, "group_size": 4, "updates_per_epoch": 2, "micro_batch": 8}


def _red(images: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
    return images[:, 0].mean((1, 2))


def _late(clips: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
    """How much redder the last frame is than the first."""
    return clips[:, -1, 0].mean((1, 2)) - clips[:, 0, 0].mean((1, 2))


def _trainer(
    folder: Path, pipeline: Path, crew: Crew, score: Any = _red, **changes: Any
) -> ExpertTrainer:
    config = load_config(tiny_recipe(folder / str(crew.rank), pipeline, **{"train": TRAIN, **changes}))
    task = build_plan(config).methods[0].rounds[0].tasks[0]
    mixture = Mixture([PromptSet(FunctionReward(score, score.__name__), PROMPTS, kl=config.objective.kl)])
    return ExpertTrainer(config, task, folder, mixture, None, "cpu", crew)


def _train(folder: Path, pipeline: Path, crew: Crew, **changes: Any) -> dict[str, torch.Tensor]:
    return trained(_trainer(folder / f"of-{crew.size}", pipeline, crew, **changes))


OBJECTIVES: dict[str, dict[str, Any]] = {
    "nft": {"name": "nft", "kl": 0.1},
    "steps": {"name": "flow_grpo", "options": {"clip_range": 0.1}},
    "pairs": {"name": "diffusion_dpo"},
    "trees": {"name": "tree_grpo", "options": {"pull": 0.1, "clip_low": 0.1, "clip_high": 0.2}},
    "kto": {"name": "diffusion_kto"},
    "candidates": {"name": "spo", "options": {"threshold": 0.0}},
    "paths": {"name": "dro", "options": {"recorded": 2}},
    "patches": {"name": "patch_dpo"},
}


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_the_number_of_processes_changes_rounding_alone(
    tiny_sd3: Path, tmp_path: Path, objective: dict[str, Any]
) -> None:
    # KTO's lists have a baseline in common, which is 0 before the first update.
    epochs = 2 if objective["name"] == "diffusion_kto" else 1

    changes = {"objective": objective, "train": {**TRAIN, "epochs": epochs}}
    train = partial(_train, tmp_path, tiny_sd3, **changes)
    (alone,) = in_crew(1, train, tmp_path)
    assert max(float(p.abs().max()) for n, p in alone.items() if "lora_B" in n) > 1e-3
    for size in (2, 3) if objective["name"] not in ("flow_grpo", "diffusion_dpo") else (2,):
        together = in_crew(size, train, tmp_path / f"results-{size}")
        for made in together:
            assert_only_rounded(alone, made)
            assert distance(together[0], made) == 0.0
        assert (tmp_path / f"of-{size}/checkpoints/epoch-000{epochs}/state.safetensors").is_file()


def _train_on_clips(folder: Path, pipeline: Path, shard: str, crew: Crew) -> dict[str, torch.Tensor]:
    trainer = _trainer(
        folder / f"of-{crew.size}", pipeline, crew, _late, train={**TRAIN, "micro_batch": 4},
        objective={"name": "dense_dpo", "options": {"segment": 3, "eta": [0.2, 1.0]}},
        executor={"shard": shard if crew.size > 1 else "none"},
        model={"height": 16, "width": 16, "options": {"frames": 9}},
    )  # fmt: skip
    return trained(trainer)


@pytest.mark.parametrize("shard", ["none", "full"])
def test_pairs_of_clips_are_redrawn_by_several_processes(
    tiny_hunyuan: Path, tmp_path: Path, shard: str
) -> None:
    train = partial(_train_on_clips, tmp_path, tiny_hunyuan, shard)
    (alone,) = in_crew(1, train, tmp_path)
    assert max(float(p.abs().max()) for n, p in alone.items() if "lora_B" in n) > 1e-3
    together = in_crew(2, train, tmp_path / "results")
    for made in together:
        assert_only_rounded(alone, made)


def _train_divided(folder: Path, pipeline: Path, crew: Crew) -> Any:
    kind = "full" if crew.size > 1 else "none"
    trainer = _trainer(
        folder / kind, pipeline, crew, executor={"shard": kind}, objective={"kl": 0.1},
        model={"gradient_checkpointing": crew.size > 1},
    )  # fmt: skip
    weight = trainer.policy.transformer.transformer_blocks[0].ff.net[2].weight
    held = weight.to_local() if isinstance(weight, DTensor) else weight
    return trained(trainer), held.numel()


def test_a_divided_base_gives_the_same_adapter(tiny_sd3: Path, tmp_path: Path) -> None:
    train = partial(_train_divided, tmp_path, tiny_sd3)
    (alone, whole), *together = in_crew(1, train, tmp_path) + in_crew(2, train, tmp_path / "results")
    assert [held * 2 for _, held in together] == [whole, whole]
    for made, _ in together:
        assert_only_rounded(alone, made)
    first, second = (
        {n: t.shape for n, t in load_file(kind / "checkpoints/epoch-0001/state.safetensors").items()}
        for kind in (tmp_path / "none", tmp_path / "full")
    )
    assert first == second


def test_blocks_are_the_members_of_the_outermost_lists() -> None:
    def block() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.ModuleList([torch.nn.Linear(1, 1)]), torch.nn.Linear(1, 1))

    model = torch.nn.Module()
    model.blocks = torch.nn.ModuleList([block(), block()])
    model.mixed = torch.nn.ModuleList([torch.nn.Linear(1, 1), torch.nn.SiLU()])
    model.part = torch.nn.Module()
    model.part.single = torch.nn.ModuleList([torch.nn.Linear(1, 1)])
    assert blocks_of(model) == [*model.blocks, *model.part.single]


def _begin(folder: Path, pipeline: Path, train: dict[str, Any], crew: Crew) -> None:
    with pytest.raises(Stopped):  # the leader alone is asked to stop
        trained(_trainer(folder, pipeline, crew, train=train), stop=crew.leader)


def test_training_goes_on_with_another_number_of_processes(tiny_sd3: Path, tmp_path: Path) -> None:
    train = {**TRAIN, "epochs": 2, "checkpoint_every": 2}
    in_crew(2, partial(_begin, tmp_path / "changed", tiny_sd3, train), tmp_path / "results")
    assert [p.name for p in (tmp_path / "changed/checkpoints").iterdir()] == ["epoch-0001"]
    went_on = trained(_trainer(tmp_path / "changed", tiny_sd3, ALONE, train=train))
    whole = trained(_trainer(tmp_path / "whole", tiny_sd3, ALONE, train=train))
    assert_only_rounded(went_on, whole)
    rows = (tmp_path / "changed/metrics.jsonl").read_text().splitlines()
    assert len(rows) == 2


@dataclass
class Member(Crew):
    """A process of a crew whose others are not there."""

    rank: int
    size: int

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Leave its own."""

    def sums(self, facts: Mapping[str, float]) -> dict[str, float]:
        """Its own."""
        return dict(facts)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_shares_of_an_update_add_up_to_it(size: int) -> None:
    group = torch.tensor([0, 0, 1, 1, 1, 2, 2, 3, 4, 4])
    values = torch.arange(10.0)
    weight = torch.nn.Parameter(torch.ones(()))

    def accumulate(index: torch.Tensor) -> dict[str, float]:
        loss = (weight * values[index]).mean()
        loss.backward()
        return {"loss": float(loss.detach())}

    gradients, losses = [], []
    for rank in range(size):
        weight.grad = None
        facts = accumulate_together(Member(rank, size), accumulate, torch.arange(10), group, [weight])
        gradients.append(float(weight.grad))  # type: ignore[arg-type]
        losses.append(facts["loss"])
    assert sum(gradients) == pytest.approx(4.5, abs=1e-5)  # the mean of 0..9
    assert sum(losses) == pytest.approx(4.5, abs=1e-5)


def test_all_processes_get_as_many_shares() -> None:
    groups = torch.arange(5)
    dealt = [[(g.tolist(), counts) for g, counts in shares(groups, Member(rank, 3))] for rank in range(3)]
    assert dealt == [
        [([3], True), ([0], True)],
        [([4], True), ([1], True)],
        [([0], False), ([2], True)],
    ]


# ------------------------------------------------------------ processes that are started and watched


def _run(job: str, should_stop: Callable[[], bool] = lambda: False) -> Any:
    events: list[Any] = []
    result = run_together(meet, job, f"training {job}", events.append, should_stop, ["cpu"] * 2)
    return result, events


def test_the_leaders_result_and_events_arrive() -> None:
    assert _run("well") == ({"ranks": 2.0}, [{"rank": 0}])


def test_a_process_that_is_killed_ends_all_with_one_line() -> None:
    line = r"process 1 of 2 died by SIGKILL, perhaps out of memory, while training killed"
    with pytest.raises(ParetuneError, match=line):
        _run("killed")


def test_a_mistake_that_one_process_finds_is_reported() -> None:
    with pytest.raises(ParetuneError, match=r"^the file is not there$"):
        _run("mistake")


def test_a_lack_of_memory_in_one_process_is_known_as_one() -> None:
    """`tune` leaves such a setting out, and goes on."""
    with pytest.raises(Unfit, match=r"^out of memory$"):
        _run("unfit")


def test_all_processes_stop_when_they_are_asked() -> None:
    with pytest.raises(Stopped):
        _run("stop", lambda: True)


def test_a_process_whose_parent_died_before_it_began_ends() -> None:
    """It would wait for the others' store, which is gone too."""
    spawn = multiprocessing.get_context("spawn")
    place, gone = Place(0, 2, "127.0.0.1", 9), 2**22 + 1  # more than any process's number
    words = (meet, "well", place, "cpu", spawn.Queue(), spawn.Event(), 1, gone)
    alone = spawn.Process(target=take_part, args=words)
    alone.start()
    alone.join(300)
    code = alone.exitcode
    alone.kill()
    assert code == 1


# ------------------------------------------------------------ what is told before training


REFUSED = {
    "objective tree_grpo with these options needs the whole base on each device": {
        "objective": {"name": "tree_grpo"}, "train": {"group_size": 4},
        "executor": {"devices_per_expert": 2, "shard": "full"},
    },
    "give executor.devices_per_expert too": {"executor": {"shard": "full"}},
    "full cannot divide a quantised base": {
        "executor": {"devices_per_expert": 2, "shard": "full"}, "model": {"options": {"quantize": "int8"}},
    },
}  # fmt: skip


@pytest.mark.parametrize("line", REFUSED)
def test_what_cannot_be_trained_together_is_reported_first(tiny_sd3: Path, tmp_path: Path, line: str) -> None:
    with pytest.raises(ParetuneError, match=line) as told:
        check(load_config(tiny_recipe(tmp_path, tiny_sd3, **REFUSED[line])))
    assert "\n" not in str(told.value)
