"""`lora: null`: a whole run that trains all weights of a tiny model, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import SD3Transformer2DModel
from safetensors.torch import load_file, save_file

from paretune.adapters.whole import CHANGES, average, inner_products
from paretune.commands.export import export_adapter, export_pipeline
from paretune.config import RunConfig
from paretune.models.loading import open_policy
from paretune.models.whole import add_changes, changed
from paretune.recipes import load_config
from paretune.records.read import read_diagnostics, read_metrics
from paretune.run import run
from paretune.sampling.request import Request
from paretune.sampling.sampler import Sampler
from paretune.sampling.source import open_source
from paretune.stages.claim import check
from paretune.types import ParetuneError, Stopped
from tests.conftest import tiny_recipe
from tests.executing import InThisProcess

TRAIN = {"epochs": 2, "learning_rate": 1e-3, "updates_per_epoch": 1, "group_size": 2}


class Stopping(InThisProcess):
    """Asks the first task to stop."""

    def map(self, function: Callable[..., Any], tasks: Sequence[Any], report: Any) -> list[Any]:
        return [function(task, report, lambda: True, ("cpu",)) for task in tasks]


def _run(config: RunConfig, out: Path, executor: type[InThisProcess], resume: bool = False) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("paretune.run.open_executor", executor)
        run(config, out, lambda event: None, resume)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_sd3: Path) -> Path:
    """A run of two rounds that was stopped in the first expert, and resumed."""
    folder = tmp_path_factory.mktemp("whole")
    recipe = tiny_recipe(folder, tiny_sd3, train=TRAIN, methods=["mapreduce"], objective={"kl": 0.1})
    config = load_config(recipe, ["lora=null"])
    with pytest.raises(Stopped):
        _run(config, folder / "run", Stopping)
    _run(config, folder / "run", InThisProcess, resume=True)
    return folder / "run"


def _weights(run: Path, folders: Sequence[str]) -> dict[str, torch.Tensor]:
    policy = open_policy(load_config(run / "config.yaml").model)
    add_changes(policy.transformer, [run / folder for folder in folders])
    return dict(policy.transformer.state_dict())


def test_a_run_trains_all_weights_and_goes_on_after_a_stop(finished: Path) -> None:
    changes = load_file(finished / "round-2/experts/dark" / CHANGES)
    base = _weights(finished, [])
    assert changes.keys() == {name for name in base if name != "pos_embed.pos_embed"}
    # Adam's first steps move every weight that has a gradient by the learning rate.
    assert max(float(change.abs().max()) for change in changes.values()) > 1e-3
    rows = read_metrics(finished / "round-1/experts/red/metrics.jsonl")
    assert [row["update"] for row in rows] == [1, 2]
    assert (finished / "summary.json").is_file()


def test_the_final_transformer_is_the_base_with_the_mean_changes_of_all_rounds(finished: Path) -> None:
    loaded = SD3Transformer2DModel.from_pretrained(finished / "final").state_dict()
    expected = _weights(finished, [])
    for round_ in (1, 2):
        folder = finished / f"round-{round_}/experts"
        experts = [load_file(folder / name / CHANGES) for name in ("red", "dark")]
        for name in experts[0]:
            expected[name] = expected[name] + (experts[0][name] + experts[1][name]) / 2
    assert loaded.keys() == expected.keys()
    assert max(float((loaded[n] - expected[n]).abs().max()) for n in loaded) < 1e-6
    merged = _weights(finished, ["round-1/merged", "round-2/merged"])
    assert max(float((loaded[n] - merged[n]).abs().max()) for n in loaded) < 1e-7
    facts = read_diagnostics(finished / "round-2/merged/diagnostics.json")
    assert facts["weights"] == [0.5, 0.5]
    assert facts["norms"][0] > 0


def test_samples_are_drawn_from_the_final_transformer(finished: Path) -> None:
    sampler = Sampler(open_source(str(finished), trust_rewards=True))
    before = {n: t.clone() for n, t in sampler.policy.transformer.state_dict().items()}
    drawn = {m: sampler.draw(Request("a red circle", method=m)) for m in ("base", "mapreduce", "mix")}
    assert not torch.equal(drawn["base"], drawn["mapreduce"])
    assert not torch.equal(drawn["mix"], drawn["mapreduce"])
    assert all(torch.equal(t, before[n]) for n, t in sampler.policy.transformer.state_dict().items())
    assert sampler.settings(Request("a red circle", method="mapreduce"))["adapters"][0]["folder"] == "final"


def test_the_pipeline_is_exported_and_an_adapter_is_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ParetuneError, match="trained all weights, so there is no adapter"):
        export_adapter(finished, tmp_path / "adapter", None)
    assert not (tmp_path / "adapter").exists()
    export_pipeline(finished, tmp_path / "pipe")
    loaded = SD3Transformer2DModel.from_pretrained(tmp_path / "pipe/transformer").state_dict()
    final = load_file(finished / "final/diffusion_pytorch_model.safetensors")
    assert all(torch.equal(loaded[name], final[name]) for name in final)


def _changes(folder: Path, **values: Sequence[float]) -> Path:
    folder.mkdir(parents=True)
    save_file({name: torch.tensor(value) for name, value in values.items()}, folder / CHANGES)
    return folder


def test_changes_are_averaged_and_compared_tensor_by_tensor(tmp_path: Path) -> None:
    one = _changes(tmp_path / "1", a=[1.0, 2.0], b=[3.0])
    two = _changes(tmp_path / "2", a=[3.0, 0.0], b=[1.0])
    assert {n: t.tolist() for n, t in average([one, two], [0.75, 0.25])} == {"a": [1.5, 1.5], "b": [2.5]}
    assert inner_products([one, two]).tolist() == [[14.0, 6.0], [6.0, 10.0]]
    with pytest.raises(ParetuneError, match="are of different models"):
        list(average([one, _changes(tmp_path / "3", a=[1.0])], [0.5, 0.5]))


def test_changes_of_another_model_are_refused_and_nothing_is_left_changed(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 1)
    weight = model.weight.detach().clone()
    with pytest.raises(ParetuneError, match="does not fit this model at other"), \
            changed(model, [_changes(tmp_path / "1", weight=[[1.0, 1.0]], other=[1.0])], [1.0]):
        pass
    assert torch.equal(model.weight, weight)
    with changed(model, [_changes(tmp_path / "2", weight=[[1.0, 3.0]])], [0.5]):
        torch.testing.assert_close(model.weight.detach(), weight + torch.tensor([[0.5, 1.5]]))
    assert torch.equal(model.weight, weight)


REFUSED = {
    "small updates vanish in bfloat16; give model.dtype: float32": ["model.dtype=bfloat16"],
    "a quantised base stays as it is": ["model.options.quantize=int8"],
    "reduce.method: ties merges adapters; give exact": ["reduce.method=ties"],
    "reduce.step and reduce.momentum are for adapters": ["reduce.momentum=0.5"],
    "reduce.final_rank cuts an adapter": ["reduce.final_rank=2"],
    "tokens are distilled from adapters": ["tokens={}"],
    "executor.shard: full divides a frozen base": [
        "executor.shard=full", "executor.devices_per_expert=2",
    ],
}  # fmt: skip


@pytest.mark.parametrize("line", REFUSED)
def test_what_needs_adapters_is_reported_before_training(tiny_sd3: Path, tmp_path: Path, line: str) -> None:
    with pytest.raises(ParetuneError, match=f"lora: null trains all weights: {line}") as told:
        check(load_config(tiny_recipe(tmp_path, tiny_sd3), ["lora=null", *REFUSED[line]]))
    assert "\n" not in str(told.value)
