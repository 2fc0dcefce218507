"""Signs of hacking: what the metrics show, what the page marks, and that stop_when goes back and resumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from paretune.config import StopConfig
from paretune.files import read_json
from paretune.models.lora import policy_deltas
from paretune.ops.signs import signs
from paretune.planning.methods import build_plan
from paretune.recipes import load_config
from paretune.report.read import Run
from paretune.report.signs import warnings
from paretune.rewards.base import FunctionReward
from paretune.stages.map import MapJob, _limits, train_expert
from paretune.stages.prompt_checks import check_unloaded
from paretune.training.checkpoint import Stopped
from paretune.training.expert import ExpertTrainer
from paretune.training.guard import beyond
from paretune.training.judging import Judging
from paretune.training.language.scoring import distinct
from paretune.training.mixture import Mixture, PromptSet
from paretune.training.objectives.flow import diversity
from paretune.types import ParetuneError, Prompt
from tests.conftest import tiny_recipe
from tests.language import language_recipe

FALLING = [1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.4, 0.3]
STOP = {"diversity": 0.7, "patience": 2}


def rows(**columns: list[float]) -> list[dict[str, Any]]:
    count = len(next(iter(columns.values())))
    return [{"update": i + 1, **{key: values[i] for key, values in columns.items()}} for i in range(count)]


def test_each_sign_is_reported_at_the_epoch_that_shows_it() -> None:
    (less,) = signs(rows(diversity=FALLING))
    assert (less.kind, less.epoch) == ("diversity", 7)
    assert less.text == "samples of a prompt differ by 47% of what they did at first"
    (kl,) = signs(rows(kl=[0, 0.1, 0.1, 0.1, 0.1, 0.1, 0.3, 0.5, 0.6]))
    assert (kl.kind, kl.epoch, kl.text) == ("kl", 9, "KL is 4.7 times what it was 3 epochs before")
    (length,) = signs(rows(length=[10.0, 10, 10, 20, 30, 40]))
    assert (length.epoch, length.text) == (6, "answers are 3 times as long as at first")


def test_a_judge_that_falls_while_the_reward_rises_is_a_sign() -> None:
    """The last three looks of the judge are all below the first three, those of the reward all above."""
    judge, reward = [0.6, 0.5, 0.55, 0.5, 0.4, 0.45, 0.3], [0.1, 0.2, 0.15, 0.3, 0.4, 0.35, 0.5]
    none: Any = float("nan")
    found = [row for pair in zip(judge, reward, strict=True) for row in (pair, (none, none))]
    told = rows(judge=[j for j, _ in found], judged=[r for _, r in found])
    (sign,) = signs(told)  # every other epoch has no look; of seven looks, 5 to 7 are the first that show it
    assert (sign.kind, sign.epoch) == ("judge", 13)
    assert sign.text == "its judge fell from 0.55 to 0.383 while the reward rose from 0.15 to 0.417"
    limits = StopConfig(judge=2)
    assert [beyond(told, i, limits) for i in (11, 13)] == [None, sign.text]
    assert signs(rows(judge=judge, judged=reward[::-1])) == []  # the reward falls too
    assert signs(rows(judge=judge[:5], judged=reward[:5])) == []


def test_what_is_healthy_short_or_unknown_gives_no_sign() -> None:
    assert signs(rows(diversity=[1.0] * 9, kl=[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])) == []
    assert signs(rows(diversity=[1.0, 0.1, 0.1, 0.1, 0.1])) == []  # fewer than two windows
    assert signs(rows(kl=[0.0] * 9)) == []
    assert signs(rows(diversity=[float("nan")] * 8)) == []
    assert signs([{"update": i} for i in range(9)]) == []


def test_the_limits_of_one_epoch() -> None:
    limits = StopConfig(diversity=0.5, kl=0.2, length=2)
    found = rows(diversity=[1, 1, 1, 0.4], kl=[0, 0, 0, 0.3], length=[4, 4, 4, 9])
    assert beyond(found, 2, limits) is None
    assert beyond(found, 3, limits) == "diversity is 0.40 of that of the first epochs, below 0.5"
    assert beyond(found, 3, StopConfig(kl=0.2)) == "KL is 0.3, above 0.2"
    told = "answers are 2.25 times as long as in the first epochs, beyond 2"
    assert beyond(found, 3, StopConfig(length=2)) == told


def test_diversity_of_samples_and_of_answers() -> None:
    clean = torch.tensor([0.0, 2.0, 5.0, 5.0]).view(4, 1, 1, 1).expand(-1, 3, 2, 2)
    assert diversity(clean, 2) == 0.5  # the standard deviations are 1 and 0
    assert distinct(["a", "a", "b", "c"], 2) == 0.75


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (["stop_when.patience=2"], "stop_when: give a limit: diversity, kl, length or judge"),
        (["stop_when.length=1"], "stop_when.length"),
        (["stop_when.diversty=0.5"], "did you mean diversity"),
        (["stop_when.judge=0"], "stop_when.judge"),
        (["stop_when.kl=1", "methods=[sequential]"], "stop_when: sequential goes on from the last epoch"),
    ],
)
def test_bad_limits_are_one_line(tiny_sd3: Path, tmp_path: Path, keys: list[str], told: str) -> None:
    with pytest.raises(ParetuneError, match=told) as caught:
        load_config(tiny_recipe(tmp_path, tiny_sd3), keys)
    assert "\n" not in str(caught.value)


def test_the_soup_shares_no_expert_that_may_be_stopped(tiny_sd3: Path, tmp_path: Path) -> None:
    path = tiny_recipe(tmp_path, tiny_sd3)
    plans = [build_plan(load_config(path, keys)).methods[1] for keys in ([], ["stop_when.kl=1"])]
    assert [p.rounds[0].tasks[0].continues for p in plans] == ["round-1/experts/red", None]


# ---------------------------------------------------------------- a judge that looks


def test_a_judge_that_could_never_look_is_told_before_training(tiny_sd3: Path, tmp_path: Path) -> None:
    path = tiny_recipe(tmp_path, tiny_sd3)
    for keys, told in (
        ([], r"stop_when\.judge: no reward names a judge; give one by rewards\.NAME\.judge"),
        (["rewards.red.judge=pictures.contrast", "objective.name=dpo"], "objective dpo draws no samples"),
    ):
        with pytest.raises(ParetuneError, match=told):
            check_unloaded(load_config(path, ["stop_when.judge=1", *keys]), [])


def test_a_judge_looks_every_few_epochs_and_changes_no_bit(tiny_sd3: Path, tmp_path: Path) -> None:
    path = tiny_recipe(tmp_path, tiny_sd3, train={"epochs": 3, "prompts_per_epoch": 2, "group_size": 3})
    judge = f"rewards.red.judge={tmp_path / 'rewards.py'}:dark"
    adapters, metrics = [], []
    for name, keys in (("off", ["stop_when.kl=9"]), ("on", ["stop_when.judge=2", "stop_when.kl=9", judge])):
        config = load_config(path, keys)
        task = build_plan(config).methods[0].rounds[0].tasks[0]
        job = MapJob(config, task, tmp_path / name, "b")
        train_expert(job, lambda _: None, lambda: False, ("cpu",))
        adapters.append((tmp_path / name / task.folder / "adapter_model.safetensors").read_bytes())
        written = (tmp_path / name / task.folder / "metrics.jsonl").read_text().splitlines()
        metrics.append([json.loads(line) for line in written])
    assert adapters[0] == adapters[1]
    assert [{"judge", "judged"} <= row.keys() for row in metrics[1]] == [True, False, True]
    assert all("judge" not in row for row in metrics[0])
    first = metrics[1][0]
    assert first["judge"] != first["judged"]


def test_the_judge_scores_one_sample_of_each_prompt_costs_turned_around() -> None:
    judging = Judging("pictures.contrast", 2)
    asked: list[list[float]] = []

    def cost(images: torch.Tensor, prompts: Any) -> torch.Tensor:
        asked.append(images[:, 0, 0, 0].tolist())
        return images.flatten(1).mean(1)

    judging._judge = FunctionReward(cost, "cost")
    judging._judge.higher_is_better = False
    mixture = Mixture([PromptSet(FunctionReward(cost, "own"), [Prompt("a"), Prompt("b")])])
    mixture.judging = judging
    drawn = torch.arange(6.0).view(-1, 1, 1, 1).expand(-1, 3, 2, 2) / 10
    for epoch, told in ((0, {"judge": pytest.approx(-0.15), "judged": pytest.approx(0.15)}), (1, {})):
        judging.begin(epoch)
        mixture.score(drawn, torch.tensor([0, 1]), 30.0)
        assert judging.told == told
    assert asked[1] == pytest.approx([0.0, 0.3])


def test_older_limits_keep_their_digest() -> None:
    known = {"diversity": None, "kl": 1.0, "length": None, "patience": 2}
    assert _limits(StopConfig(kl=1)) == known
    assert _limits(StopConfig(kl=1, judge=3)) == {**known, "judge": 3}


# ---------------------------------------------------------------- an expert that is stopped


class Falling(ExpertTrainer):
    """An expert whose metrics tell of less and less diversity, whatever it does. kept: weights by epoch."""

    def epoch(self) -> dict[str, Any]:
        self.kept = [*getattr(self, "kept", []), self.weights()]
        row = super().epoch()
        return {**row, "diversity": FALLING[self.state.epoch - 1]}

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: p.detach().clone() for name, p in self.state.parameters.items()}


def falling(folder: Path, pipeline: Path) -> Falling:
    config = load_config(tiny_recipe(folder, pipeline, train={"epochs": 8}, stop_when=STOP))
    reward = FunctionReward(lambda images, prompts: images[:, 0].mean((1, 2)), "red")
    mixture = Mixture([PromptSet(reward, [Prompt("a red circle"), Prompt("two blue squares")])])
    trainer = Falling(config, build_plan(config).methods[0].rounds[0].tasks[0], folder, mixture, None, "cpu")
    trainer.resume("inputs", None)
    return trainer


def test_it_goes_back_to_the_weights_of_the_last_good_epoch(tiny_sd3: Path, tmp_path: Path) -> None:
    trainer, seen = falling(tmp_path, tiny_sd3), list[dict[str, Any]]()
    found = trainer.run(seen.append, lambda: False)
    assert trainer.state.epoch == 6  # epochs 5 and 6 are beyond .7
    (notice,) = [event["notice"] for event in seen if "notice" in event]
    assert notice.startswith("round-1/experts/red: stopped after epoch 6 of 8 by stop_when: diversity is 0.4")
    good = trainer.kept[3]  # with which epoch 4 began
    assert all(torch.equal(trainer.state.best[name], value) for name, value in good.items())
    assert not all(torch.equal(p, good[name]) for name, p in trainer.state.parameters.items())
    wanted = policy_deltas(trainer.policy.transformer, good)
    assert all(torch.equal(found[module].dense(), wanted[module].dense()) for module in wanted)


@pytest.mark.parametrize("stop", [4, 5, 6])
def test_stopped_by_the_user_it_resumes_to_the_same_bits(tiny_sd3: Path, tmp_path: Path, stop: int) -> None:
    whole = falling(tmp_path / "whole", tiny_sd3)
    wanted = whole.run(lambda event: None, lambda: False)
    first = falling(tmp_path / "parts", tiny_sd3)
    try:
        first.run(lambda event: None, lambda: first.state.epoch == stop)
    except Stopped:
        assert stop < 6
    again = falling(tmp_path / "parts", tiny_sd3)
    found = again.run(lambda event: None, lambda: False)
    assert again.state.epoch == 6
    assert all(torch.equal(found[m].dense(), wanted[m].dense()) for m in wanted)


def test_the_manifest_says_why_and_a_language_expert_stops_too(tiny_llama: Path, tmp_path: Path) -> None:
    path = language_recipe(
        tmp_path, tiny_llama, train={"epochs": 5}, stop_when={"length": 1.0001, "patience": 1, "judge": 1}
    )
    reward = next(iter(load_config(path).rewards))
    config = load_config(path, [f"rewards.{reward}.judge=repetition"])
    task = build_plan(config).methods[0].rounds[0].tasks[0]
    job = MapJob(config, task, tmp_path / "run", "b")
    manifest = train_expert(job, lambda _: None, lambda: False, ("cpu",))
    written = (tmp_path / "run" / task.folder / "metrics.jsonl").read_text().splitlines()
    metrics = [json.loads(line) for line in written]
    assert {"diversity", "length", "judge", "judged"} <= metrics[0].keys()
    assert -1 <= metrics[0]["judge"] <= 0  # a cost, turned around
    assert manifest["stopped"].startswith(f"stopped after epoch {len(metrics)} of 5 by stop_when: answers")
    assert read_json(tmp_path / "run" / task.folder / "manifest.json")["stopped"] == manifest["stopped"]


def test_the_page_marks_signs_and_judges_that_fall() -> None:
    summary = {
        "rewards": ["ocr"], "judges": {"ocr": "rapidocr"}, "higher_is_better": {},
        "methods": {"base": {"ocr": 0.4, "rapidocr": 0.5}, "mapreduce": {"ocr": 0.8, "rapidocr": 0.3}},
        "stderr": {m: {"ocr": 0.01, "rapidocr": 0.01} for m in ("base", "mapreduce")},
    }  # fmt: skip
    run = Run("x", metrics={("round-1", "ocr"): rows(diversity=FALLING)}, summary=summary)
    first, second = warnings(run)
    told = "samples of a prompt differ by 47% of what they did at first"
    assert first == f"Sign of hacking: round-1, expert ocr, epoch 7: {told}."
    assert second.startswith("Sign of hacking: ")
    assert "ocr got better" in second
    assert "its judge rapidocr worse" in second
