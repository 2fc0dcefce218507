"""The budget is what was drawn: prompt files shorter than an epoch, alone, mixed, in pairs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from paretune.cli import app as cli
from paretune.config import RunConfig
from paretune.files import write_json
from paretune.ops.dealing import deal, dealt_always
from paretune.planning.budget import check_even, counted, expert_budget, set_sizes, short_sets
from paretune.planning.methods import build_plan
from paretune.planning.plan import derive_seed
from paretune.recipes import find_recipe, load_config, parse_config
from paretune.rewards.base import FunctionReward
from paretune.stages.scorers import Scale, recorded
from paretune.stages.summarise import summarise
from paretune.training.mixture import Mixture, PromptSet
from paretune.types import ParetuneError, Prompt

ALL = ["mapreduce", "rewarded_soup", "morl_d", "morl_dr", "sequential", "selma"]


def recipe(folder: Path, sizes: dict[str, int], **changes: Any) -> RunConfig:
    """A recipe whose training files have so many prompts: 2 rounds of 3 epochs, 24 prompts of 2 samples."""
    rewards = {}
    for name, size in sizes.items():
        (folder / f"{name}.txt").write_text("".join(f"{name} {i}\n" for i in range(size)))
        prompts = str(folder / f"{name}.txt")
        rewards[name] = {"reward": "pictures.ocr", "prompts": prompts, "eval_prompts": "e.txt"}
    train = {"epochs": 3, "prompts_per_epoch": 24, "group_size": 2, "updates_per_epoch": 2}
    changes = {"baselines": {"joint": "long"}, **changes}
    raw = {"rounds": 2, "rewards": rewards, "train": {**train, **changes.pop("train", {})}, **changes}
    return parse_config(raw, "test")


def budgets(config: RunConfig) -> dict[str, tuple[int, int]]:
    """Samples and updates of each method."""
    plan = counted(config, build_plan(config), set_sizes(config))
    return {m.name: (m.samples, m.updates) for m in plan.methods}


def test_a_short_file_gives_what_it_has(tmp_path: Path) -> None:
    config = recipe(tmp_path, {"a": 4, "b": 100}, methods=ALL)
    singly = 2 * 3 * (4 + 24) * 2
    mixed = 2 * 6 * (4 + 12) * 2
    assert budgets(config) == {
        "mapreduce": (singly, 24), "rewarded_soup": (singly, 24), "sequential": (singly, 24),
        "selma": (singly, 24), "morl_d": (mixed, 24), "morl_dr": (mixed, 24),
    }  # fmt: skip
    task = build_plan(config).methods[1].rounds[0].tasks[0]
    assert expert_budget(config, task, set_sizes(config)) [:3] == (2 * 3 * 4 * 2, 12, 2 * 3 * 4 * 2)


def test_files_that_are_long_enough_change_nothing(tmp_path: Path) -> None:
    config = recipe(tmp_path, {"a": 24, "b": 100}, methods=ALL)
    assert counted(config, build_plan(config), set_sizes(config)) == build_plan(config)
    assert set(budgets(config).values()) == {(2 * 3 * 2 * 24 * 2, 2 * 3 * 2 * 2)}
    assert short_sets(config, set_sizes(config)) == []


def test_updates_are_no_more_than_groups(tmp_path: Path) -> None:
    """One prompt: one group an epoch, so one update where the recipe asks for two."""
    assert budgets(recipe(tmp_path, {"a": 1}, methods=["mapreduce"])) == {"mapreduce": (2 * 3 * 2, 2 * 3)}
    five = recipe(tmp_path, {"a": 5}, methods=["mapreduce"], train={"updates_per_epoch": 4})
    assert budgets(five) == {"mapreduce": (60, 2 * 3 * 3)}  # groups of 2, 2 and 1


def test_pairs_are_trained_on_as_they_are(tmp_path: Path) -> None:
    config = recipe(tmp_path, {"a": 4}, methods=["mapreduce"], objective={"name": "dpo"},
                    model={"path": "assistant"})  # fmt: skip
    assert budgets(config) == {"mapreduce": (2 * 3 * 4, 12)}


@pytest.mark.parametrize("count", [1, 2, 5, 24, 25])
@pytest.mark.parametrize("lengths", [(4, 100), (4, 3), (30, 30), (12, 13), (1, 12, 100), (8, 8, 9)])
def test_what_is_counted_is_what_a_mixture_draws(
    tmp_path: Path, count: int, lengths: tuple[int, ...]
) -> None:
    sizes = {f"r{i}": length for i, length in enumerate(lengths)}
    train = {"prompts_per_epoch": count, "updates_per_epoch": 1}
    config = recipe(tmp_path, sizes, methods=["morl_d"], train=train)
    task = build_plan(config).methods[0].rounds[0].tasks[0]
    sources = [
        PromptSet(FunctionReward(len, name), [Prompt(f"{name} {i}") for i in range(size)])
        for name, size in sizes.items()
    ]
    mixture = Mixture(sources)
    drawn = [
        len(mixture.draw(count, torch.Generator().manual_seed(derive_seed(task.seed, epoch))))
        for epoch in range(task.epochs)
    ]
    assert expert_budget(config, task, set_sizes(config)).samples == 2 * sum(drawn)
    always = dealt_always(count, lengths)
    assert always is None or set(drawn) == {always}


def test_the_lot_decides_where_one_set_is_short() -> None:
    generator = torch.Generator().manual_seed(0)
    assert {sum(deal(9, (4, 100), generator)) for _ in range(20)} == {8, 9}
    assert dealt_always(9, (4, 100)) is None
    assert dealt_always(9, (5, 100)) == 9
    assert dealt_always(9, (4, 3)) == 7


def test_plan_says_that_a_file_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short = tmp_path / "short.txt"
    short.write_text("a red circle\na blue circle\na red square\na green square\n")
    words = ["plan", "smoke", "--set", f"rewards.preference.prompts={short}",
             "--set", "train.prompts_per_epoch=24", "--set", "rounds=1",
             "--set", "train.epochs=1"]  # fmt: skip
    monkeypatch.setattr("sys.argv", ["paretune", *words])
    with pytest.raises(SystemExit):
        cli.main()
    told = f"{short} holds 4 prompts, and an epoch asks for 24 (train.prompts_per_epoch): only 4 are"
    assert told in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["paretune", *words, "--json"])
    with pytest.raises(SystemExit):
        cli.main()
    plan = json.loads(capsys.readouterr().out)
    assert [line.startswith(told) for line in plan["short"]] == [True]
    group = plan["config"]["train"]["group_size"]
    others = len(plan["config"]["rewards"]) - 1
    assert plan["plan"]["methods"][0]["samples"] == (others * 24 + 4) * group


def test_the_summary_tells_what_was_drawn(tmp_path: Path) -> None:
    config = recipe(tmp_path, {"ocr": 4}, rounds=1, methods=["mapreduce"])
    write_json(tmp_path / "round-1" / "merged" / "diagnostics.json", {"contraction": None, "spread": 1.0})
    scales = recorded([Scale("ocr", "reward", "ocr", 0.0, 1.0, True)])
    write_json(tmp_path / "evaluation" / "base" / "manifest.json", {"stage": "evaluation", **scales})
    rows = [
        {"method": method, "reward": "ocr", "prompt": "a", "value": 0.5}
        for method in ("base", "expert:ocr", "mapreduce@1")
    ]
    told = summarise(config, build_plan(config), tmp_path, rows, {"total": 1.0})
    assert told["budget"] == {"base": 0, "mapreduce": 24, "expert:ocr": 24}


def test_a_set_that_is_not_there_is_taken_to_be_long_enough(tmp_path: Path) -> None:
    config = recipe(tmp_path, {"a": 4}, methods=["mapreduce"])
    (tmp_path / "a.txt").unlink()
    assert set_sizes(config) == {}
    assert budgets(config) == {"mapreduce": (2 * 3 * 24 * 2, 12)}


def test_plan_loads_no_dataset_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(spec: str) -> None:
        raise AssertionError(f"{spec} was loaded")

    monkeypatch.setattr("paretune.data.prompts.load_hub", refuse)
    assert set_sizes(load_config(find_recipe("llama2-7b")), hub=False) == {}


@pytest.mark.parametrize(
    ("sizes", "methods", "train", "told"),
    [
        ((4, 100), ["morl_d"], {"prompts_per_epoch": 9}, "9 prompts of 2 sets, some of them short, are"),
        ((3, 100), ["mapreduce"], {"updates_per_epoch": 4}, "4 does not divide the 6 samples of an epoch"),
        ((3, 100), ["mapreduce"], {"updates_per_epoch": 3}, None),
        ((4, 100), ["morl_d"], {"prompts_per_epoch": 8}, None),
    ],
)
def test_a_language_model_s_epochs_are_alike_or_refused_before_training(
    tmp_path: Path, sizes: tuple[int, ...], methods: list[str], train: dict[str, int], told: str | None
) -> None:
    config = recipe(tmp_path, dict(zip("ab", sizes, strict=True)), methods=methods, train=train)
    if told is None:
        check_even(config, set_sizes(config))
        return
    with pytest.raises(ParetuneError) as caught:
        check_even(config, set_sizes(config))
    assert told in str(caught.value)


def test_an_epoch_of_answers_has_the_updates_that_the_recipe_asks_for(tmp_path: Path) -> None:
    """TRL divides 6 prompts of 8 answers by four; whole groups would give three updates."""
    config = recipe(
        tmp_path, {"a": 30}, methods=["mapreduce"], model={"path": "assistant"}, objective={"name": "grpo"},
        train={"prompts_per_epoch": 6, "group_size": 8, "updates_per_epoch": 4},
    )  # fmt: skip
    check_even(config, set_sizes(config))
    assert budgets(config) == {"mapreduce": (2 * 3 * 48, 2 * 3 * 4)}
