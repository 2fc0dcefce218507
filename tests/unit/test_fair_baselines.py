"""Joint policies with the batch of all experts: what is drawn, what is sent, and runs of earlier versions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from paretune.files import write_json, write_rows, write_text
from paretune.planning.methods import build_plan
from paretune.planning.plan import derive_seed
from paretune.planning.words import described, exchange
from paretune.recipes import changed_keys, load_config, parse_config
from paretune.records.manifest import write_manifest
from paretune.records.read import read_summary
from paretune.stages.exchanged import exchanged, training_seconds
from paretune.stages.map import MapJob, expert_inputs, train_expert
from paretune.types import ParetuneError
from tests.conftest import tiny_recipe

from .test_leaning import config, digest_of

JOINT = ["morl_d", "morl_dr"]


def test_the_earlier_form_keeps_every_digest() -> None:
    """The digests are those of the version before `baselines`."""
    long = config(methods=JOINT, rounds=4, baselines={"joint": "long"})
    assert digest_of(long, 0, 0) == "8a35547c579bdfb72b47f5b88863caab81fb32ec79a2e31833f984927f0d10a8"
    assert digest_of(long, 1, 0) == "79797509ffadb52fd66736a43b669951e26beb99ec40d17f209196ae39aa354a"
    assert digest_of(config(methods=JOINT, rounds=4), 0, 0) != digest_of(long, 0, 0)


def test_an_epoch_draws_the_prompts_of_all_experts(tiny_sd3: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, tiny_sd3, methods=["morl_d"], rounds=1, train={"epochs": 1})
    made = load_config(recipe)
    (task,) = build_plan(made).methods[0].rounds[0].tasks
    assert (task.epochs, task.width) == (1, 2)
    seen: list[dict[str, object]] = []
    manifest = train_expert(MapJob(made, task, tmp_path, "base"), seen.append, lambda: False, ["cpu"])
    assert seen[0]["kept_groups"] == 4  # 2 prompts of each of two rewards
    assert manifest["updates"] == 2
    assert expert_inputs(MapJob(made, task, tmp_path, "base")) == manifest["inputs"]


def test_a_language_model_draws_them_too(tiny_llama: Path, tmp_path: Path) -> None:
    from paretune.stages.map import mixture_of
    from paretune.training.language.trainer import LanguageTrainer
    from tests.language import language_recipe

    made = load_config(language_recipe(tmp_path, tiny_llama, methods=["morl_dr"], rounds=1))
    (task,) = build_plan(made).methods[0].rounds[0].tasks
    trainer = LanguageTrainer(made, task, tmp_path, mixture_of(made, task), None, "cpu")
    generator = torch.Generator().manual_seed(derive_seed(task.seed, 0))
    assert torch.equal(trainer._draw(0), trainer.mixture.draw(4, generator))
    assert len(trainer._draw(0)) == 4


def test_a_run_of_an_earlier_version_keeps_its_form(tmp_path: Path) -> None:
    """Its config.yaml spells out every key that there was; `baselines` was not among them."""
    raw = config(methods=JOINT).model_dump(mode="json")
    del raw["baselines"]
    text = parse_config(raw, "x").to_yaml()
    older = text.replace("baselines:\n  joint: wide\n", "")
    assert older != text
    write_text(tmp_path / "config.yaml", older)
    assert load_config(tmp_path / "config.yaml").baselines.joint == "wide"  # a recipe of that name
    write_json(tmp_path / "plan.json", {})
    kept = load_config(tmp_path / "config.yaml")
    assert kept.baselines.joint == "long"
    assert changed_keys(kept, config(methods=JOINT)) == ["baselines.joint"]
    without = [c.model_copy(update={"methods": ("mapreduce",)}) for c in (kept, config())]
    assert changed_keys(*without) == []  # nothing of such a run depends on it


def test_a_device_sends_an_adapter_a_round_or_a_gradient_an_update(tmp_path: Path) -> None:
    """2 rounds against 2 rounds of 12 epochs of 2 updates, of adapters of 1000 bytes."""
    made = config(methods=["mapreduce", "rewarded_soup", "morl_dr", "morl_d"], rounds=2)
    plan = build_plan(made)
    for method in plan.methods[:-1]:
        for task in (task for round_ in method.rounds for task in round_.tasks):
            folder = tmp_path / task.folder
            folder.mkdir(parents=True)
            (folder / "adapter_model.safetensors").write_bytes(b"x" * 1000)
    assert exchanged(plan, tmp_path, each=2) == {}  # the devices of one expert exchange gradients too
    sent = exchanged(plan, tmp_path)
    assert sent == {"mapreduce": 2000, "rewarded_soup": 1000, "morl_dr": 48_000}
    (told,) = exchange(sent, {"mapreduce": 70.0}, 2)
    assert "mapreduce 0.0 MB in 70 s, rewarded_soup 0.0 MB, morl_dr" in told
    assert exchange({"mapreduce": 2000}, {}, 2) == []
    write_manifest(tmp_path / plan.methods[2].rounds[0].tasks[0].folder, "expert", "x", [], updates=7)
    assert exchanged(plan, tmp_path)["morl_dr"] == 7000  # it stopped early, or groups told nothing


def test_seconds_are_those_of_the_slowest_expert_or_a_share_of_a_joint_policy(tmp_path: Path) -> None:
    plan = build_plan(config(methods=["mapreduce", "rewarded_soup", "morl_dr", "sequential"], rounds=2))
    for method in plan.methods[:-1]:
        for round_ in method.rounds:
            for number, task in enumerate(round_.tasks, start=1):
                rows = [{"update": i + 1, "reward": 0.0, "seconds": 10.0 * number} for i in range(2)]
                write_rows(tmp_path / task.folder / "metrics.jsonl", rows)
    student = [{"update": i + 1, "loss": 0.0, "seconds": 3.0} for i in range(2)]
    write_rows(tmp_path / plan.methods[0].rounds[0].beside("distil") / "metrics.jsonl", student)
    assert training_seconds(plan, tmp_path, 2) == {
        "mapreduce": 2 * 40.0 + 6.0,  # two rounds, whose second expert takes 2 x 20 s, and a student
        "rewarded_soup": 40.0 + 40.0,  # with what it shares with round 1
        "morl_dr": 20.0 / 2,
    }


def test_sentences_that_are_none_are_damage(tmp_path: Path) -> None:
    write_json(tmp_path / "summary.json", {"described": "text"})
    with pytest.raises(ParetuneError, match=r"summary\.json is damaged.*described"):
        read_summary(tmp_path / "summary.json", ())


@pytest.mark.parametrize(
    ("form", "told"), [("wide", "draw 2 times an expert's batch"), ("long", "2 times as many epochs")]
)
def test_the_report_says_how_joint_policies_were_trained(form: str, told: str) -> None:
    (line,) = described(config(methods=["mapreduce", *JOINT], baselines={"joint": form}))
    assert told in line
    assert "morl_d and morl_dr" in line
