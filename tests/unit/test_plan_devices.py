"""`paretune plan` names the device that this machine has, and times in a unit that shows them."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from paretune.cli import app as cli
from paretune.commands.plan_recipe import plan_recipe
from paretune.planning.devices import planned_device, spoken
from paretune.planning.methods import build_plan
from paretune.planning.peak import measure_update
from paretune.recipes import find_recipe, load_config
from paretune.tracking import table
from paretune.types import ParetuneError

from ..language import make_llama


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def _config(name: str, *sets: str) -> Any:
    return load_config(find_recipe(name), sets)


@pytest.mark.parametrize(
    ("recipe", "sets", "kind", "here"),
    [
        ("quickstart", (), "cpu", True),
        ("assistant", (), "cpu", True),
        ("quickstart", ("executor.device=cpu",), "cpu", True),
        ("sd35-medium", (), "cuda", False),
        ("sd35-medium", ("executor.device=auto",), "cuda", False),
        ("sd35-medium", ("executor.device=cpu",), "cpu", True),
        ("llama2-7b", (), "cuda", False),
    ],
)
def test_without_a_gpu(recipe: str, sets: tuple[str, ...], kind: str, here: bool) -> None:
    device = planned_device(_config(recipe, *sets))
    assert (device.kind, device.here) == (kind, here)
    assert ("this machine has none" in device.name) == (not here)


def test_a_local_folder_is_planned_for_the_cpu_of_this_machine(tmp_path: Path) -> None:
    """Not for a GPU that is not there, as only the embedded models were spared from."""
    model = make_llama(tmp_path / "model")
    device = planned_device(_config("assistant", f"model.path={model}"))
    assert (device.kind, device.here) == ("cpu", True)


def test_a_model_that_is_not_fetched_yet_is_planned_for_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path))
    device = planned_device(_config("smollm2"))
    assert device.here
    assert device.kind == "cpu"


def test_with_a_gpu_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA Something")
    assert planned_device(_config("quickstart")).name == "NVIDIA Something"
    assert planned_device(_config("quickstart", "executor.device=cpu")).kind == "cpu"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.2, "under 1 s"), (36, "36 s"), (99.6, "100 s"), (720, "12 min"), (5999, "100 min"), (13320, "3.7 h"),
     (400 * 3600, "400 h"), (1234 * 3600, "1,234 h")],
)  # fmt: skip
def test_a_time_is_reported_in_the_unit_that_shows_it(seconds: float, told: str) -> None:
    assert spoken(seconds) == told


def test_the_table_names_this_cpu_and_no_hours_of_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["paretune", "plan", "smoke"])
    with pytest.raises(SystemExit):
        cli.main()
    told = " ".join(capsys.readouterr().out.split())
    assert "one core of this machine's CPU" in told
    assert "cuda" not in told
    assert "0.00 " not in told


def test_a_base_that_is_fine_tuned_first_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = plan_recipe("llama2-7b", (), False, False, print).first
    assert line.startswith("first: meta-llama/Llama-2-7b-hf was trained on plain text alone; `paretune sft ")
    assert plan_recipe("assistant", (), False, False, print).first == []
    monkeypatch.setattr(sys, "argv", ["paretune", "plan", "llama2-7b", "--json"])
    with pytest.raises(SystemExit):
        cli.main()
    told = json.loads(capsys.readouterr().out)
    assert told["first"] == [line]
    assert told["device"]["here"] is False


def test_a_tracker_that_is_not_installed_is_told_before_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "find_spec", lambda name: None if name == "swanlab" else object())
    (line,) = plan_recipe("assistant", ["trackers=[tensorboard,swanlab]"], False, False, print).first
    assert line == "trackers: swanlab is not installed: pip install swanlab, or leave swanlab out"


SMALL = ("train.epochs=2", "train.prompts_per_epoch=2", "train.group_size=2", "train.updates_per_epoch=1")


@pytest.mark.parametrize("sets", [(), ("objective.name=dpo", "train.micro_batch=2")])
def test_a_language_model_is_measured_by_its_own_trainer(
    tmp_path: Path, sets: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prompts = make_llama(tmp_path / "model"), tmp_path / "prompts.jsonl"
    rows = [{"prompt": f"how do i clean {i}", "chosen": "yes soap", "rejected": "no"} for i in range(4)]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = [f"rewards.{r}.prompts={prompts}" for r in ("helpful", "harmless")]
    config = _config("assistant", f"model.path={model}", "model.options={template: plain, max_tokens: 4}",
                     *SMALL, *own, *sets)  # fmt: skip
    plan = build_plan(config)
    peak = measure_update(config, "cpu", plan)
    assert peak.samples == (4 if not sets else 2)
    assert peak.hours is not None
    assert set(peak.hours) == {"mapreduce", "rewarded_soup"}
    method = plan.methods[0]
    assert peak.hours["mapreduce"] == pytest.approx(method.samples * peak.seconds / peak.samples / 3600)
    assert "from that training and Reduce take" in str(peak)


def test_a_language_model_of_the_hub_is_not_downloaded_to_be_measured() -> None:
    with pytest.raises(ParetuneError, match="needs a language model that is on this machine"):
        measure_update(_config("llama2-7b"), "cpu")


def test_the_hours_of_a_flow_model_follow_from_its_steps() -> None:
    config = _config("smoke", "train.micro_batch=2")
    plan = build_plan(config)
    peak = measure_update(config, "cpu", plan)
    method, steps = plan.methods[0], config.model.steps
    each = steps * peak.draw_seconds + peak.seconds  # nft trains at one noise level here, without an anchor
    assert peak.hours is not None
    assert peak.hours[method.name] == pytest.approx(method.samples / 2 * each / 3600)


@pytest.mark.parametrize("recipe", ["llama2-7b", "sd35-medium"])
def test_a_plan_reads_no_data_set_of_the_hub(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would download it, or wait for a connection that is not there."""
    monkeypatch.setattr("paretune.data.prompts.load_hub", lambda spec: pytest.fail(f"{spec} was loaded"))
    sets = [f"rewards.{name}.{key}=hf:someone/prompts@train"
            for name in _config(recipe).rewards for key in ("prompts", "eval_prompts")]  # fmt: skip
    assert plan_recipe(recipe, sets, False, False, print).cut == []
