"""One policy that is given the weights of the rewards: training, runs, samples, and every family's hook."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from paretune.adapters.inputs import measurable
from paretune.adapters.inspect import inspect_adapters
from paretune.adapters.merge import merge_adapters
from paretune.commands.export import export_adapter
from paretune.config import ModelConfig
from paretune.demo.answers import Answers
from paretune.files import read_json, read_rows
from paretune.models.detect import family_of
from paretune.models.loading import open_policy
from paretune.models.weighting import FILE, new_weighting, time_embedding, with_weights
from paretune.planning.methods import build_plan
from paretune.recipes import load_config
from paretune.rewards.base import FunctionReward
from paretune.sampling import Request, Sampler
from paretune.training.expert import ExpertTrainer, Stopped
from paretune.training.mixture import Mixture, PromptSet
from paretune.training.together.crew import ALONE, Crew
from paretune.types import ParetuneError, Prompt
from tests.conftest import tiny_recipe
from tests.families import FamilyCase, cases
from tests.here import run_here, stop_at
from tests.made_run import open_trusted
from tests.together import assert_only_rounded, in_crew, trained

PROMPTS = [Prompt("a red circle"), Prompt("two blue squares"), Prompt("a sign saying kite")]
TRAIN = {"learning_rate": 0.02, "prompts_per_epoch": 2, "group_size": 4}
CONDITIONED = Path("conditioned/experts/joint")


def _red(images: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
    return images[:, 0].mean((1, 2))


def _dark(images: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
    return -images.flatten(1).mean(1)


def _trainer(folder: Path, pipeline: Path, crew: Crew = ALONE, **changes: Any) -> ExpertTrainer:
    changes = {"methods": ["conditioned"], "rounds": 1, "train": TRAIN, **changes}
    config = load_config(tiny_recipe(folder / str(crew.rank), pipeline, **changes))
    task = build_plan(config).methods[0].rounds[0].tasks[0]
    sets = [PromptSet(FunctionReward(f, n), PROMPTS, kl=config.objective.kl)
            for f, n in ((_red, "red"), (_dark, "dark"))]  # fmt: skip
    return ExpertTrainer(config, task, folder, Mixture(sets, "drawn"), None, "cpu", crew)


def _velocity(trainer: ExpertTrainer, weights: list[list[float]] | None) -> torch.Tensor:
    policy = trainer.policy
    noise = policy.initial_noise(2, torch.Generator().manual_seed(0))
    given = None if weights is None else torch.tensor(weights)
    conditions = with_weights(trainer.conditions.select(torch.tensor([0, 1])), given)
    with torch.no_grad():
        return policy.velocity(noise, torch.tensor([0.9, 0.4]), conditions, 1.0)


RED, DARK = [[1.0, 0.0]] * 2, [[0.0, 1.0]] * 2


def test_it_begins_as_its_base_and_then_follows_the_weights(tiny_sd3: Path, tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, tiny_sd3, objective={"kl": 0.1})
    base = _velocity(trainer, None)
    for weights in (RED, DARK, [[0.3, 0.7], [1.0, 0.0]]):
        assert torch.equal(_velocity(trainer, weights), base)
    own = {n: p.detach().clone() for n, p in trainer.state.parameters.items() if n.startswith("weights.")}
    assert [n.removeprefix("weights.") for n in own] == [
        "first.weight", "first.bias", "last.weight", "last.bias",
    ]  # fmt: skip
    rows = [trainer.epoch() for _ in range(2)]  # the last layer first: before, no gradient comes through it
    assert rows[-1]["kl"] > 0
    for name, before in own.items():
        assert not torch.equal(trainer.state.parameters[name], before), name
    red, dark, both = (_velocity(trainer, w) for w in (RED, DARK, [RED[0], DARK[0]]))
    assert (red - dark).abs().max() > 1e-3
    torch.testing.assert_close(both, torch.stack([red[0], dark[1]]))  # each sample has its own weights
    with trainer.trained.anchor():
        assert torch.equal(_velocity(trainer, RED), base)


OTHERS = ({"name": "awm"}, {"name": "flow_grpo"}, {"options": {"old_decay": 0.5}})


@pytest.mark.parametrize("objective", OTHERS)
def test_other_objectives_train_it_too(tiny_sd3: Path, tmp_path: Path, objective: dict[str, Any]) -> None:
    trainer = _trainer(tmp_path, tiny_sd3, objective=objective, train={**TRAIN, "updates_per_epoch": 1})
    assert trainer.epoch()["ratio"] == pytest.approx(1.0, abs=1e-5)
    assert float(trainer.state.parameters["weights.last.weight"].detach().abs().max()) > 0


def test_training_that_was_stopped_goes_on_to_the_bit(tiny_sd3: Path, tmp_path: Path) -> None:
    def train(folder: Path, stop: bool = False) -> dict[str, torch.Tensor]:
        trainer = _trainer(folder, tiny_sd3, train={**TRAIN, "ema_decay": 0.9})
        trainer.resume("inputs", None)
        trainer.run(lambda event: None, lambda: stop)
        assert trainer.weighting is not None
        told = trainer.weighting.embedding.state_dict()
        averaged = {n.removeprefix("weights."): t for n, t in trainer.state.ema.items()}
        assert all(torch.equal(told[name], averaged[name]) for name in told)  # the expert is the average
        return {n: p.detach().clone() for n, p in trainer.state.parameters.items()}

    whole = train(tmp_path / "whole")
    with pytest.raises(Stopped):
        train(tmp_path / "cut", stop=True)
    resumed = train(tmp_path / "cut")
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def _train_divided(folder: Path, pipeline: Path, shard: str, crew: Crew) -> dict[str, torch.Tensor]:
    kind = shard if crew.size > 1 else "none"
    return trained(_trainer(folder / f"of-{crew.size}", pipeline, crew, executor={"shard": kind}))


@pytest.mark.parametrize("shard", ["none", "full"])
def test_two_processes_train_it_together(tiny_sd3: Path, tmp_path: Path, shard: str) -> None:
    train = partial(_train_divided, tmp_path, tiny_sd3, shard)
    (alone,), together = in_crew(1, train, tmp_path), in_crew(2, train, tmp_path / "results")
    for made in together:
        assert_only_rounded(alone, made)


def test_a_whole_run_its_front_and_its_samples(
    tiny_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(
        tmp_path, tiny_sd3, methods=["conditioned"], rounds=1, train=TRAIN,
        evaluate={"prompts": 1, "lattice": 1},
    )  # fmt: skip
    out, cut = tmp_path / "out", tmp_path / "cut"
    summary = run_here(recipe, out, monkeypatch)
    # 2 epochs of 2 prompts of 4 samples, for each of two rewards.
    assert (summary["budget"]["conditioned"], summary["updates"]["conditioned"]) == (32, 4)
    assert "given the weights of the rewards" in summary["described"][1]
    embedding = load_file(out / CONDITIONED / FILE)
    assert {name: tuple(t.shape) for name, t in embedding.items()} == {
        "first.weight": (128, 2), "first.bias": (128,), "last.weight": (16, 128), "last.bias": (16,),
    }  # fmt: skip
    assert (out / "final" / FILE).read_bytes() == (out / CONDITIONED / FILE).read_bytes()
    adapter = load_file(out / CONDITIONED / "adapter_model.safetensors")
    assert all(".lora_A." in name or ".lora_B." in name for name in adapter)  # a plain adapter of peft
    assert FILE in read_json(out / CONDITIONED / "manifest.json")["files"]
    rows = [row for row in read_rows(out / "evaluation.jsonl") if row["method"] == "conditioned"]
    assert {tuple(row["preference"]) for row in rows} == {(0.5, 0.5), (1.0, 0.0), (0.0, 1.0)}

    for folder, update in ((str(CONDITIONED), 1), ("evaluation/conditioned", 1)):
        stop_at(recipe, cut, monkeypatch, folder, update)
    run_here(recipe, cut, monkeypatch, resume=True)
    for file in (CONDITIONED / FILE, CONDITIONED / "adapter_model.safetensors", Path("evaluation.jsonl")):
        assert (cut / file).read_bytes() == (out / file).read_bytes()

    sampler = Sampler(open_trusted(str(out)))
    assert sampler.source.methods == ("conditioned", "base")
    asked = ((1.0, 0.0), (0.0, 1.0), None)
    ask = {shares: Request("a red circle", "conditioned", shares) for shares in asked}
    drawn: dict[Any, Any] = {shares: sampler.draw(request) for shares, request in ask.items()}
    again: Any = sampler.draw(ask[1.0, 0.0])
    assert not torch.equal(drawn[1.0, 0.0], drawn[0.0, 1.0])
    assert torch.equal(drawn[1.0, 0.0], again)  # a request leaves nothing behind
    told = sampler.settings(ask[None])["weights"]
    assert (told["folder"], told["given"]) == (str(CONDITIONED), {"red": 0.5, "dark": 0.5})
    assert "weights" not in sampler.settings(Request("a red circle", "base"))
    answers = Answers(sampler)
    drawn_by = {point.name: point.drawn_by for point in answers.front.points}
    assert drawn_by["conditioned"] == drawn_by["conditioned at another preference"] == "conditioned"
    page = answers.answer("a red circle", [1.0, 0.0], "conditioned", "", 0)
    assert "This preference was measured" in page.front
    assert "given weights" in page.front
    with pytest.raises(ParetuneError, match="which other tools cannot do"):
        export_adapter(out, tmp_path / "exported", None)
    for given in (out / "final", out / "final" / "adapter_model.safetensors"):
        with pytest.raises(ParetuneError, match=r"final.* is one part of a policy that is given weights"):
            merge_adapters([given], out=tmp_path / "merged")
        with pytest.raises(ParetuneError, match="use it through its run, by `paretune sample RUN --prefer"):
            measurable([given], (), tmp_path / "aside")
    assert len(inspect_adapters([out / "final"]).adapters) == 1
    (out / CONDITIONED / FILE).write_bytes(b"damaged")
    with pytest.raises(ParetuneError, match="changed or damaged"):
        Sampler(open_trusted(str(out))).draw(ask[None])


# ---------------------------------------------------------------- every family


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[FamilyCase], Path]:
    return lambda case: case.make(tmp_path_factory.mktemp(case.name))


@pytest.mark.parametrize("name", sorted(cases()))
def test_every_family_gives_each_sample_its_weights(
    name: str, made: Callable[[FamilyCase], Path]
) -> None:
    case = cases()[name]
    pipeline = made(case)
    model = ModelConfig.model_validate({"path": str(pipeline), **case.model})
    if not time_embedding(model):
        assert name in {"flux_kontext", "qwen_image_edit", "wan22"}
        return
    policy: Any = open_policy(model)
    guidance = case.guidances[1]
    conditions = policy.encode([p.text for p in case.prompts(pipeline.parent / "inputs")], True)
    noise, sigma = policy.initial_noise(2, torch.Generator().manual_seed(0)), torch.tensor([0.9, 0.4])

    def velocity(weights: list[list[float]] | None) -> torch.Tensor:
        given = with_weights(conditions, None if weights is None else torch.tensor(weights))
        with torch.no_grad():
            return policy.velocity(noise, sigma, given, guidance)

    base = velocity(None)
    weighting = new_weighting(policy, 2, 0)
    assert torch.equal(velocity(RED), base)
    torch.nn.init.normal_(weighting.embedding.last.weight)
    red, dark, both = (velocity(w) for w in (RED, DARK, [RED[0], DARK[0]]))
    assert (red - dark).abs().max() > 1e-4
    torch.testing.assert_close(both, torch.stack([red[0], dark[1]]), atol=1e-4, rtol=1e-3)
    weighting.remove()
    assert torch.equal(velocity(RED), base)


def test_a_language_model_and_a_pair_have_no_place_for_weights(tiny_llama: Path) -> None:
    assert time_embedding(ModelConfig.model_validate({"path": str(tiny_llama)})) == ""
    wan = family_of("Wan-AI/Wan2.1-T2V-1.3B-Diffusers").time_embedding
    assert wan({}) == "condition_embedder.time_embedder"
    assert (wan({"boundary_ratio": 0.9}), wan({"expand_timesteps": True})) == ("", "")
