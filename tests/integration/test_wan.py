"""What Wan's pipelines do beyond what every family does, on tiny random pipelines that diffusers saved."""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler, WanPipeline

from paretune import run as runs
from paretune.adapters.fold import fold_adapter
from paretune.adapters.formats import in_format
from paretune.adapters.merge import merge_adapters
from paretune.adapters.read import read_adapter
from paretune.adapters.store import save_delta
from paretune.config import LoraConfig, ModelConfig
from paretune.models.flow import Sampling, sample
from paretune.models.loading import open_policy
from paretune.models.lora import attach_parents, attach_policy, fold, only, policy_deltas
from paretune.models.true_sizes import policy_of, random_conditions
from paretune.models.wan.family import FAMILY
from paretune.ops.lowrank import LowRank
from paretune.planning.estimate import estimate
from paretune.planning.methods import build_plan
from paretune.recipes import find_recipe, load_config
from paretune.types import ParetuneError
from tests.conftest import tiny_recipe
from tests.families import PROMPTS
from tests.families.wan import make_wan, published, theirs
from tests.families.wan22 import CASE

SECOND = "pytorch_lora_weights_2.safetensors"


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_wan(tmp_path_factory.mktemp("wan"))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_wan(tmp_path_factory.mktemp("wan22"), two=True)


def _policy(folder: Path, height: int = 16, width: int = 16, **options: Any) -> Any:
    own = {"frames": 5, "max_sequence_length": 16, **options}
    size = {"height": height, "width": width, "options": own}
    return open_policy(ModelConfig.model_validate({"path": str(folder), **size}))


def _noise(policy: Any, count: int = 2) -> torch.Tensor:
    return policy.initial_noise(count, torch.Generator().manual_seed(0))


def _drawn(policy: Any, guidance: float) -> torch.Tensor:
    conditions = policy.encode(list(PROMPTS), True)
    return policy.decode(sample(policy, conditions, _noise(policy), Sampling(4, guidance)).clean)


def _same(ours: torch.Tensor, others: torch.Tensor) -> None:
    torch.testing.assert_close(ours, others, atol=1e-5, rtol=0)


# ---------------------------------------------------------------- the pipeline's own


def test_a_folder_of_unipc_is_sampled_by_euler_with_its_shift(tmp_path: Path) -> None:
    unipc = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0, num_train_timesteps=1000
    )
    policy = _policy(make_wan(tmp_path, scheduler=unipc))
    ours = _drawn(policy, 4.5)
    euler = FlowMatchEulerDiscreteScheduler.from_config(policy.pipe.scheduler.config, shift=5.0)
    policy.load_text()
    policy.pipe.scheduler = euler
    _same(ours, theirs(policy, PROMPTS, _noise(policy), 4, 4.5))
    assert policy.schedule(4).sigmas == pytest.approx((1.0, 0.9097, 0.7169, 0.0244, 0.0), abs=1e-3)


def test_a_recipes_shift_is_the_schedules(one: Path) -> None:
    plain, shifted = _policy(one), _policy(one, shift=5.0)
    euler: Any = FlowMatchEulerDiscreteScheduler.from_config(plain.pipe.scheduler.config, shift=5.0)
    euler.set_timesteps(4)
    assert shifted.schedule(4).sigmas == tuple(euler.sigmas.tolist())
    assert shifted.schedule(4).sigmas[1] > plain.schedule(4).sigmas[1]


def test_a_negative_prompt_is_the_pipelines(one: Path) -> None:
    policy, plain = _policy(one, negative_prompt="blurred"), _policy(one)
    ours = _drawn(policy, 4.5)
    policy.load_text()
    _same(ours, theirs(policy, PROMPTS, _noise(policy), 4, 4.5, negative_prompt="blurred"))
    assert (ours - _drawn(plain, 4.5)).abs().max() > 1e-4


def test_prompts_are_cleaned_and_filled_up_with_zeros(one: Path) -> None:
    policy = _policy(one)
    embeds = policy.encode(["a red circle", "  a  red\ncircle ", "a &lt;red circle"], False).embeds
    assert embeds.shape == (3, 16, 16)
    torch.testing.assert_close(embeds[0], embeds[1], rtol=0, atol=0)
    assert not torch.equal(embeds[0], embeds[2])
    assert (embeds[0].abs().sum(-1) > 0).tolist() == [True] * 14 + [False] * 2  # twelve characters, "▁", end


def test_a_time_for_every_token(tmp_path: Path) -> None:
    policy = _policy(make_wan(tmp_path, expand_timesteps=True))
    ours = _drawn(policy, 4.5)
    policy.load_text()
    _same(ours, theirs(policy, PROMPTS, _noise(policy), 4, 4.5))


# ---------------------------------------------------------------- two transformers


def test_each_sample_of_a_batch_goes_through_its_own_transformer(two: Path) -> None:
    policy = _policy(two)
    x, sigma = _noise(policy, 3), torch.tensor([0.2, 0.95, 0.875])
    conditions = policy.encode([*PROMPTS, "a kite"], False)
    with torch.no_grad():
        together = policy.velocity(x, sigma, conditions, 1.0)
        parts = policy.pipe.transformer_2, policy.pipe.transformer, policy.pipe.transformer
        for i, part in enumerate(parts):
            own = slice(i, i + 1)
            alone = part(x[own], 1000 * sigma[own], conditions.embeds[own], return_dict=False)[0]
            _same(together[own], alone)


@pytest.mark.parametrize(("sigma", "part"), [(0.95, "transformer_1."), (0.5, "transformer_2.")])
def test_only_the_transformer_of_a_sigma_learns(two: Path, sigma: float, part: str) -> None:
    policy, lora = _policy(two), LoraConfig.model_validate({"rank": 2, "alpha": 4})
    parameters = attach_policy(policy.transformer, lora, policy.targets, seed=0)
    assert len(parameters) == 32  # A and B of eight modules in one block of each
    assert len(policy_deltas(policy.transformer, parameters)) == 16
    conditions = policy.encode(list(PROMPTS), True)
    policy.velocity(_noise(policy), torch.full((2,), sigma), conditions, 4.0).square().mean().backward()
    learning = {name for name, p in parameters.items() if p.grad is not None and p.grad.abs().max() > 0}
    assert len(learning) == 8  # every B; A comes when B is no longer zero
    assert all(name.startswith(part) for name in learning)


def test_the_second_guidance_is_of_the_second_transformer(two: Path) -> None:
    plain, own = _policy(two), _policy(two, guidance_scale_2=1.5)
    conditions, sigma = plain.encode(list(PROMPTS), True), torch.tensor([0.95, 0.5])
    with torch.no_grad():
        a, b = (policy.velocity(_noise(policy), sigma, conditions, 4.0) for policy in (plain, own))
        weaker = plain.velocity(_noise(plain), sigma, conditions, 1.5)
    _same(a[0], b[0])
    _same(weaker[1], b[1])
    assert (a[1] - b[1]).abs().max() > 1e-4


@pytest.fixture
def adapter(two: Path, tmp_path: Path) -> Path:
    """An adapter of both transformers, with two ranks."""
    policy, generator = _policy(two), torch.Generator().manual_seed(1)
    ends = (*policy.targets, "ffn.net.0.proj", "ffn.net.2")  # as in the recipe
    names = [name for name, _ in policy.transformer.named_modules() if name.endswith(ends)]
    deltas = {}
    for place, name in enumerate(names):
        rows, columns = policy.transformer.get_submodule(name).weight.shape
        rank = 2 + place % 2
        b, a = torch.randn(rows, rank, generator=generator), torch.randn(rank, columns, generator=generator)
        deltas[name] = LowRank(0.3 * b, 0.3 * a)
    files = save_delta(tmp_path / "adapter", deltas, str(two), {})
    assert files == [
        "adapter_model.safetensors", "adapter_config.json", "pytorch_lora_weights.safetensors", SECOND
    ]  # fmt: skip
    return tmp_path / "adapter"


def _velocity(policy: Any) -> torch.Tensor:
    """At noise of both transformers."""
    with torch.no_grad():
        return policy.velocity(
            _noise(policy), torch.tensor([0.95, 0.3]), policy.encode(list(PROMPTS), True), 4.0
        )


def test_fold_changes_both_transformers_as_diffusers_does(two: Path, adapter: Path, tmp_path: Path) -> None:
    plain, mended = _policy(two), tmp_path / "folded"
    before = _velocity(plain)
    CASE.load_lora(plain.pipe, adapter)
    done = fold_adapter(two, adapter, mended)
    assert (done.modules, done.files) == (20, 2)
    after = _velocity(_policy(mended))
    torch.testing.assert_close(after, _velocity(plain), atol=1e-5, rtol=1e-4)
    assert ((after - before).flatten(1).abs().amax(1) > 1e-2).all()
    whole = _policy(two)
    fold(whole.transformer, dict(read_adapter(adapter)))
    assert whole.save_pretrained(tmp_path / "exported")
    _same(_velocity(_policy(tmp_path / "exported")), after)


def test_earlier_rounds_beside_the_base_are_as_if_folded(two: Path, adapter: Path) -> None:
    deltas = dict(read_adapter(adapter))
    beside, folded = _policy(two), _policy(two)
    before = _velocity(beside)
    fold(folded.transformer, deltas)
    attach_parents(beside.transformer, deltas)
    torch.testing.assert_close(_velocity(beside), _velocity(folded), atol=1e-5, rtol=1e-4)
    with only(beside.transformer, policy=False, parents=False):
        _same(_velocity(beside), before)


@pytest.mark.parametrize("form", ["diffusers", "comfyui", "kohya"])
def test_other_tools_get_a_file_for_each_transformer(
    two: Path, adapter: Path, tmp_path: Path, form: str
) -> None:
    out, ours = tmp_path / "out", _policy(two)
    with in_format(out, form, "wan") as place:
        merge_adapters([adapter], out=place)
    first, second = sorted(path.name for path in out.glob("*.safetensors"))
    pipe = WanPipeline.from_pretrained(two)
    pipe.load_lora_weights(str(out), weight_name=first)
    pipe.load_lora_weights(str(out), weight_name=second, load_into_transformer_2=True)
    plain = _policy(two)
    plain.transformer.transformer_1, plain.transformer.transformer_2 = pipe.transformer, pipe.transformer_2
    fold(ours.transformer, dict(read_adapter(adapter)))
    torch.testing.assert_close(_velocity(plain), _velocity(ours), atol=1e-5, rtol=1e-4)
    if form == "diffusers":
        assert len(read_adapter(out / second)) == 10
        with pytest.raises(ParetuneError, match="of one transformer each: name one"):
            read_adapter(out)


# ---------------------------------------------------------------- what cannot be used


def test_a_folder_without_its_second_transformer_is_one_line_before_a_run(two: Path, tmp_path: Path) -> None:
    shutil.copytree(two, tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / "transformer_2")
    config = load_config(tiny_recipe(tmp_path, tmp_path / "model", model=CASE.model))
    with pytest.raises(ParetuneError, match=r"model lacks its transformer_2$"):
        runs.run(config, tmp_path / "out", lambda event: None)
    assert not (tmp_path / "out").exists()


def test_transformers_that_do_not_fit_together_are_one_line(two: Path, tmp_path: Path) -> None:
    shutil.copytree(two, tmp_path / "model")
    other = make_wan(tmp_path / "other", heads=1)
    shutil.rmtree(tmp_path / "model" / "transformer_2")
    shutil.copytree(other / "transformer", tmp_path / "model" / "transformer_2")
    with pytest.raises(ParetuneError, match="do not fit together: num_attention_heads is 2 and 1"):
        _policy(tmp_path / "model")


@pytest.mark.parametrize(
    ("file", "key", "value", "told"),
    [
        ("model_index.json", "boundary_ratio", "high", "could not convert string to float: 'high'"),
        ("vae/config.json", "latents_std", [1.0, 2.0], "cannot be opened: The size of tensor a"),
        ("transformer/config.json", "patch_size", 2, "transformer cannot be loaded: .int. object is not"),
    ],
)
def test_a_damaged_folder_is_one_line(
    two: Path, tmp_path: Path, file: str, key: str, value: Any, told: str
) -> None:
    shutil.copytree(two, tmp_path / "model")
    path = tmp_path / "model" / file
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(ParetuneError, match=told) as error:
        _policy(tmp_path / "model")
    assert "\n" not in str(error.value)


def test_a_second_guidance_needs_a_second_transformer(one: Path) -> None:
    with pytest.raises(ParetuneError, match="guidance_scale_2 is for a model with two transformers"):
        _policy(one, guidance_scale_2=3.0)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"frames": 4}, r"frames: 4 does not fit this model: give 2 k \+ 1, such as 81"),
        ({"height": 24}, "height: 24 does not fit this model: give a multiple of 16, such as 32"),
    ],
)
def test_sizes_that_do_not_fit_are_one_line(one: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ParetuneError, match=told):
        _policy(one, **changes)


# ---------------------------------------------------------------- sizes


def test_the_estimate_holds_both_transformers_and_runs_one() -> None:
    config = load_config(find_recipe("wan2.2-a14b"))
    single = config.model.model_copy(
        update={"path": "Wan-AI/Wan2.1-T2V-14B-Diffusers", "options": {"frames": 5}}
    )
    both, alone = (
        estimate(c, build_plan(c), "cuda") for c in (config, config.model_copy(update={"model": single}))
    )
    assert both.parameters == 2 * 14.29e9
    assert alone.parameters == 14.29e9
    assert both.tokens == alone.tokens == 2 * 30 * 30 + 512
    assert both.hours == alone.hours
    assert both.memory_gb is not None
    assert alone.memory_gb is not None
    assert both.memory_gb - alone.memory_gb == pytest.approx(2 * 14.29)


def test_a_model_of_true_size_is_built_with_both_transformers(two: Path) -> None:
    sizes = published(two, ["transformer", "transformer_2"], boundary_ratio=0.875)
    size = {"height": 16, "width": 16, "options": {"frames": 5}}
    policy: Any = policy_of(FAMILY, sizes, ModelConfig.model_validate({"path": "owner/name", **size}), "cpu")
    assert policy.pipe.transformer_2 is not policy.pipe.transformer
    conditions = random_conditions(policy, 2)
    assert conditions.embeds.shape == (2, 512, 16)
    v = policy.velocity(_noise(policy), torch.tensor([0.95, 0.5]), conditions, 4.0)
    assert v.shape == (2, 4, 3, 8, 8)
