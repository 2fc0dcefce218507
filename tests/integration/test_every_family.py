"""The same tests for every family of models, each on the tiny random pipeline of its case.

`tests/families` has one file for each family; nothing here names one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from paretune import run as runs
from paretune.adapters.store import save_delta
from paretune.config import ModelConfig
from paretune.models.detect import family_of
from paretune.models.facts import read_shape
from paretune.models.flow import Sampling, sample
from paretune.models.loading import open_policy
from paretune.models.lora import fold
from paretune.ops.lowrank import LowRank
from paretune.planning.estimate import estimate
from paretune.planning.methods import build_plan
from paretune.recipes import find_recipe, load_config
from paretune.report import page
from paretune.reward_tokens.pipelines import Scaled
from paretune.rewards.base import FunctionReward
from paretune.training.expert import ExpertTrainer
from paretune.training.mixture import Mixture, PromptSet
from paretune.training.objectives.table import objective_names
from paretune.training.trainers import check_experts, check_objective
from paretune.types import ParetuneError, Prompt
from tests.conftest import tiny_recipe
from tests.executing import InThisProcess
from tests.families import PROMPTS, FamilyCase, cases

CLOSE = {"atol": 1e-5, "rtol": 0}


@pytest.fixture(scope="session", params=sorted(cases()))
def case(request: pytest.FixtureRequest) -> FamilyCase:
    return cases()[request.param]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[FamilyCase], Path]:
    """The pipeline of a case, made once."""
    folders: dict[str, Path] = {}

    def make(case: FamilyCase) -> Path:
        if case.name not in folders:
            folders[case.name] = case.make(tmp_path_factory.mktemp(case.name))
        return folders[case.name]

    return make


@pytest.fixture
def pipeline(case: FamilyCase, made: Callable[[FamilyCase], Path]) -> Path:
    return made(case)


def _policy(case: FamilyCase, pipeline: Path, **changes: Any) -> Any:
    return open_policy(ModelConfig.model_validate({"path": str(pipeline), **case.model, **changes}))


def _texts(case: FamilyCase, pipeline: Path) -> list[str]:
    return [prompt.text for prompt in case.prompts(pipeline.parent / "inputs")]


def _noise(policy: Any, seed: int = 0) -> torch.Tensor:
    return policy.initial_noise(len(PROMPTS), torch.Generator().manual_seed(seed))


def _red(samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
    return samples.select(-3, 0).flatten(1).mean(1)


def _trainer(case: FamilyCase, folder: Path, pipeline: Path, **changes: Any) -> ExpertTrainer:
    changes = {"model": case.model, **case.changes, **changes}
    config = load_config(tiny_recipe(folder, pipeline, case.pictures, **changes))
    task = build_plan(config).methods[0].rounds[0].tasks[0]
    own = FunctionReward(_red, "red")
    mixture = Mixture([PromptSet(own, case.prompts(pipeline.parent / "inputs"), kl=0.01)])
    return ExpertTrainer(config, task, folder, mixture, None, "cpu")


def _parameters(trainer: ExpertTrainer) -> list[torch.Tensor]:
    return [p.detach().clone() for p in trainer.state.parameters.values()]


# ---------------------------------------------------------------- what the pipeline itself does


@pytest.mark.parametrize("guided", [False, True])
def test_euler_sampling_is_the_pipelines_own(case: FamilyCase, pipeline: Path, guided: bool) -> None:
    policy, guidance = _policy(case, pipeline), case.guidances[guided]
    noise = _noise(policy)
    texts = _texts(case, pipeline)
    conditions = policy.encode(texts, True)
    ours = policy.decode(sample(policy, conditions, noise, Sampling(4, guidance)).clean)
    policy.load_text()
    theirs = case.theirs(policy, texts, noise, 4, guidance)
    assert ours.shape == theirs.shape
    assert ours.std() > 0.01  # not one colour, which any sampler would give
    torch.testing.assert_close(ours, theirs, **CLOSE)


def test_plain_diffusers_loads_the_adapter_that_is_folded_here(
    case: FamilyCase, pipeline: Path, tmp_path: Path
) -> None:
    folded, plain = _policy(case, pipeline), _policy(case, pipeline)
    generator = torch.Generator().manual_seed(1)
    ends = tuple(f".{target}" for target in folded.targets)
    modules = [name for name, _ in folded.transformer.named_modules() if f".{name}".endswith(ends)]
    deltas = {}
    for name in modules:
        rows, columns = folded.transformer.get_submodule(name).weight.shape
        factors = (torch.randn(size, generator=generator) for size in ((rows, 2), (2, columns)))
        deltas[name] = LowRank(*(0.3 * factor for factor in factors))
    save_delta(tmp_path / "adapter", deltas, str(pipeline), {})
    x, conditions = _noise(folded), folded.encode(_texts(case, pipeline), True)
    sigma = torch.tensor([0.3, 0.95])
    before = folded.velocity(x, sigma, conditions, case.guidances[1])
    fold(folded.transformer, deltas)
    case.load_lora(plain.pipe, tmp_path / "adapter")
    ours, theirs = (p.velocity(x, sigma, conditions, case.guidances[1]) for p in (folded, plain))
    assert (ours - before).abs().max() > 1e-3
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-4)


def test_pixels_come_back_at_the_scale_of_the_latents(case: FamilyCase, pipeline: Path) -> None:
    policy = _policy(case, pipeline)
    noise = _noise(policy)
    torch.testing.assert_close(policy.scale(policy.unscale(noise)), noise, atol=1e-5, rtol=1e-5)
    assert policy.encode_media(policy.decode(noise)).shape == noise.shape


# ---------------------------------------------------------------- training


def _check(config: Any) -> None:
    """What is checked of the objective before training."""
    check_objective(config)
    check_experts(config)


@pytest.mark.parametrize("name", objective_names("pictures"))
def test_every_objective_trains(case: FamilyCase, pipeline: Path, tmp_path: Path, name: str) -> None:
    """Or it is refused in one line before training, where it needs what the family or the recipe lacks."""
    # Candidates of a tiny model are alike, so that spo's usual threshold would leave no list.
    special = {"flow_grpo": {"window": [0, 1], "ratio": "guard"}, "spo": {"threshold": 0.0}}
    changes = {
        "model": case.model, **case.changes,
        "objective": {"name": name, "kl": 0.01, "options": special.get(name, {})},
        "train": {"updates_per_epoch": 1, "epochs": 1, "group_size": 4},
    }  # fmt: skip
    lacks = name == "sem_dpo" or (name == "patch_dpo" and family_of(str(pipeline)).medium == "clips")
    if lacks:
        config = load_config(tiny_recipe(tmp_path, pipeline, case.pictures, **changes))
        with pytest.raises(ParetuneError, match=name):
            _check(config)
        return
    trainer = _trainer(case, tmp_path, pipeline, **changes)
    before = _parameters(trainer)
    assert trainer.epoch()["ratio"] == pytest.approx(1.0, abs=1e-4)
    after = _parameters(trainer)
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(torch.isfinite(p).all() for p in after)


def test_gradient_checkpointing_changes_no_update(case: FamilyCase, pipeline: Path, tmp_path: Path) -> None:
    after = []
    for on in (False, True):
        model = {**case.model, "gradient_checkpointing": on}
        trainer = _trainer(case, tmp_path / str(on), pipeline, model=model)
        trainer.epoch()
        after.append(_parameters(trainer))
    for plain, checkpointed in zip(*after, strict=True):
        torch.testing.assert_close(checkpointed, plain, atol=1e-6, rtol=1e-4)


def test_an_expert_learns_on_a_base_in_eight_bits(case: FamilyCase, pipeline: Path, tmp_path: Path) -> None:
    options = {**case.model.get("options", {}), "quantize": "int8"}
    trainer = _trainer(case, tmp_path, pipeline, model={**case.model, "options": options})
    layers = [m for m in trainer.policy.transformer.modules() if isinstance(m, nn.Linear)]
    kept: list[Any] = [getattr(layer, "base_layer", layer).weight for layer in layers]
    assert any(hasattr(weight, "qdata") for weight in kept)
    before = _parameters(trainer)
    assert trainer.epoch()["ratio"] == pytest.approx(1.0, abs=1e-4)
    after = _parameters(trainer)
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(torch.isfinite(p).all() for p in after)


def test_an_expert_learns_on_a_float16_base(case: FamilyCase, pipeline: Path, tmp_path: Path) -> None:
    if "float16" not in family_of(str(pipeline)).dtypes:
        with pytest.raises(ParetuneError, match=r"model\.dtype: float16 is no dtype"):
            _policy(case, pipeline, dtype="float16")
        return
    trainer = _trainer(case, tmp_path, pipeline, model={**case.model, "dtype": "float16"})
    assert trainer.policy.transformer.dtype == torch.float16
    before = _parameters(trainer)
    assert trainer.epoch()["ratio"] == pytest.approx(1.0, abs=1e-3)
    after = _parameters(trainer)
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in after)


def test_reward_tokens_enter_or_are_refused_in_one_line(case: FamilyCase, pipeline: Path) -> None:
    policy, texts = _policy(case, pipeline), _texts(case, pipeline)
    generator = torch.Generator().manual_seed(0)
    if not case.tokens:
        with pytest.raises(ParetuneError, match=case.refusal):
            policy.encode(texts, False, [Scaled(policy.new_token("red", 2, "", generator))])
        return
    token = policy.new_token("red", 2, "", generator)
    assert set(token.vectors) == set(case.tokens)
    plain = policy.encode(texts, False)
    absent = policy.encode(texts, False, [Scaled(token, scale=0.0)])
    torch.testing.assert_close(absent.embeds, plain.embeds, rtol=0, atol=0)
    present = policy.encode(texts, False, [Scaled(token)])
    loss = present.embeds.square().mean()
    if present.pooled is not None:
        loss = loss + present.pooled.square().mean()
    loss.backward()
    assert all(v.grad is not None and v.grad.abs().max() > 0 for v in token.vectors.values())


# ---------------------------------------------------------------- recipes and runs


def _published(case: FamilyCase) -> dict[str, Any]:
    """The shipped recipe with its size, steps and batch cut down, everything else as it is."""
    shipped = yaml.safe_load(Path(find_recipe(case.recipe)).read_text())
    model = {k: v for k, v in shipped["model"].items() if k != "path"}
    train = {k: v for k, v in shipped["train"].items() if k not in ("epochs", "checkpoint_every")}
    options = shipped["objective"].get("options", {})
    window = {"window": [0, 3, 2]} if "window" in options else {}
    small = {"prompts_per_epoch": 2, "group_size": 4, "updates_per_epoch": 2, "micro_batch": 3, "epochs": 1}
    keep = {"keep": 2} if "keep" in train else {}
    averaged = {"ema_every": 1} if "ema_every" in train else {}  # 8 is more updates than there are
    merged = {**model.get("options", {}), **case.model.get("options", {})}
    return {
        "rounds": 2,
        "methods": ["mapreduce"],  # a soup tells nothing of a family that the rounds do not
        "model": {**model, **case.model, "options": merged, "steps": 4},
        "lora": {**shipped["lora"], "rank": 2},
        "objective": {**shipped["objective"], "options": {**options, **window}},
        "train": {**train, **small, **keep, **averaged},
    }


def test_a_whole_run_of_the_published_recipe(
    case: FamilyCase, pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rounds by the recipe's own settings: experts, average, fold, evaluation, report."""
    monkeypatch.setattr(runs, "open_executor", InThisProcess)
    monkeypatch.setattr(page, "all_plots", lambda run: [])
    recipe = tiny_recipe(tmp_path / "recipe", pipeline, case.pictures, **_published(case))
    out = tmp_path / "run"
    summary = runs.run(load_config(recipe), out, lambda event: None)
    assert set(summary["methods"]) > {"base", "expert:red", "mapreduce@2"}
    final = load_file(out / "final" / "adapter_model.safetensors")
    assert {t.dtype for t in final.values()} == {torch.float32}
    assert max(float(t.abs().max()) for n, t in final.items() if "lora_B" in n) > 0
    page_text = (out / "report.html").read_text()
    assert ('alt="input: ' in page_text) == bool(case.pictures)
    moving = "<video" in page_text
    assert moving == (_policy(case, pipeline).family.medium == "clips")


def test_the_published_recipe_is_planned_without_a_download(case: FamilyCase) -> None:
    config = load_config(find_recipe(case.recipe))
    needed = estimate(config, build_plan(config), "cuda")
    assert needed.tokens is not None
    assert needed.parameters is not None
    assert needed.memory_gb is not None
    assert needed.tokens > 1000  # a true size
    assert needed.parameters > 1e9
    assert needed.memory_gb > 2 * needed.parameters / 1e9  # it is trained in 16 bits


# ---------------------------------------------------------------- sizes


def test_shapes_are_reported_before_loading_as_after(case: FamilyCase, pipeline: Path) -> None:
    def model(width: int) -> ModelConfig:
        whole = {"path": str(pipeline), **case.model, "height": 32, "width": width}
        return ModelConfig.model_validate(whole)

    narrow, wide = read_shape(model(32)), read_shape(model(64))
    assert narrow is not None
    assert wide is not None
    assert wide.tokens == 2 * narrow.tokens > 0
    policy: Any = open_policy(model(64))
    assert policy.shape == wide
    with torch.no_grad():
        drawn = policy.decode(torch.zeros(1, *wide.latents))
    frames = (wide.frames,) if policy.family.medium == "clips" else ()
    assert drawn.shape == (1, *frames, 3, 32, 64)


def test_a_size_that_does_not_fit_is_one_line_before_loading(
    case: FamilyCase, pipeline: Path, tmp_path: Path
) -> None:
    config = load_config(tiny_recipe(tmp_path, pipeline, case.pictures, model={**case.model, "width": 27}))
    with pytest.raises(ParetuneError, match=r"model\.width: 27 does not fit this model: give a multiple of"):
        runs.run(config, tmp_path / "out", lambda event: None)
    assert not (tmp_path / "out").exists()
