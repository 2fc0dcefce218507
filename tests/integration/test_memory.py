"""What the big models need: embeddings kept on disk, encoders that leave, one line when memory is out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from paretune.adapters.store import save_delta
from paretune.config import ModelConfig, RunConfig
from paretune.models import true_sizes
from paretune.models.family import Published, by_hub_id
from paretune.models.flux.policy import FluxPolicy
from paretune.models.loading import open_policy
from paretune.models.memory import memory_errors, to_draw, to_load, to_measure, to_train
from paretune.models.sd3.policy import SD3Policy
from paretune.ops.lowrank import LowRank
from paretune.planning.methods import build_plan
from paretune.planning.peak import measure_update
from paretune.planning.plan import TokenTask
from paretune.recipes import changed_keys, load_config
from paretune.reward_tokens.pipelines import Scaled
from paretune.sampling import Request, Sampler
from paretune.sampling.source import open_source
from paretune.stages.evaluate import EvaluateJob, Subject, evaluate_subject
from paretune.stages.evaluate import _inputs as digest_of
from paretune.stages.map import MapJob, expert_inputs, train_expert
from paretune.stages.train_tokens import TokenJob, train_token
from paretune.training.objectives.settings import needs_whole_batches
from paretune.types import ParetuneError
from tests.conftest import tiny_recipe
from tests.language import language_recipe

SIZE = {"height": 16, "width": 16, "options": {"max_sequence_length": 16}}


def _policy(folder: Path, **changes: object) -> FluxPolicy:
    return FluxPolicy(ModelConfig.model_validate({"path": str(folder), **SIZE, **changes}))


def test_text_encoders_load_once_for_a_prompt_set(
    tiny_flux: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path))
    first = _policy(tiny_flux)
    assert first.pipe.text_encoder is None
    made = first.encode(["a red circle", "a kite"], False)
    second = _policy(tiny_flux)
    monkeypatch.setattr(second, "load_text", lambda: pytest.fail("the encoders were loaded again"))
    kept = second.encode(["a red circle", "a kite"], False)
    torch.testing.assert_close(kept.embeds, made.embeds, rtol=0, atol=0)
    torch.testing.assert_close(kept.pooled, made.pooled, rtol=0, atol=0)
    other = _policy(tiny_flux, options={"max_sequence_length": 20}).encode(["a red circle", "a kite"], False)
    assert other.embeds.shape[1] == 20  # another setting is another file
    file = next(tmp_path.rglob("*.safetensors"))
    file.write_bytes(b"damaged")
    assert _policy(tiny_flux).encode(["a red circle", "a kite"], False).embeds.shape == made.embeds.shape


def test_text_encoders_leave_unless_a_token_trains(tiny_flux: Path) -> None:
    policy, moves = _policy(tiny_flux), list[str]()
    policy.load_text()
    policy.pipe.text_encoder.to = lambda device: moves.append(str(device))
    policy.encode(["a square that no other test asks for"], False)
    assert moves == ["cpu", "cpu"]  # to the device, which is the CPU here, and away from it
    token = policy.new_token("red", 1, "", torch.Generator().manual_seed(0))
    policy.encode(["a kite"], False, [Scaled(token)])
    assert moves == ["cpu"] * 3
    policy.free_text()
    assert policy.pipe.text_encoder is None


def test_a_missing_encoder_is_one_line(
    tiny_flux: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path / "cache"))
    broken = tmp_path / "broken"
    shutil.copytree(tiny_flux, broken)
    shutil.rmtree(broken / "text_encoder_2")
    with pytest.raises(ParetuneError, match=r"model\.path: .*broken lacks its text_encoder_2$"):
        _policy(broken).encode(["a red circle"], False)


OUT = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
CPU_OUT = RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory")


def _config(folder: Path, pipeline: Path, *overrides: str) -> RunConfig:
    return load_config(tiny_recipe(folder, pipeline), overrides)


@pytest.mark.parametrize(
    ("error", "told"), [(OUT, "out of memory on the accelerator: less"), (CPU_OUT, "out of memory: less")]
)
def test_out_of_memory_is_one_line(error: Exception, told: str) -> None:
    with pytest.raises(ParetuneError) as found, memory_errors(lambda: "less"):
        raise error
    assert str(found.value) == told


def test_another_error_is_not_taken_for_memory() -> None:
    with pytest.raises(RuntimeError, match="a bug"), memory_errors(lambda: "less"):
        raise RuntimeError("a bug")


def test_the_advice_names_what_would_change_something(tiny_flux: Path, tmp_path: Path) -> None:
    told = to_train(_config(tmp_path, tiny_flux))
    assert "go on with --resume --set train.micro_batch=3 --set model.gradient_checkpointing=true" in told
    least = ("train.micro_batch=1", "model.gradient_checkpointing=true", "model.dtype=bfloat16")
    told = to_train(_config(tmp_path, tiny_flux, *least))
    assert not any(name in told for name in ("micro_batch", "checkpointing", "dtype", "frames"))
    assert "less of model.height and model.width, model.options.max_sequence_length, lora.rank" in told
    assert "--resume" not in to_train(_config(tmp_path, tiny_flux), begun=False)
    assert "evaluate.batch_size=32" in to_measure(_config(tmp_path, tiny_flux))
    one = _config(tmp_path, tiny_flux, "evaluate.batch_size=1")
    assert "batch_size" not in to_measure(one)
    assert "model.dtype=bfloat16" in to_load(one.model)
    assert "CUDA_VISIBLE_DEVICES" in to_draw(one.model)


def test_clips_and_texts_have_advice_of_their_own(
    tiny_hunyuan: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    assert "model.options.frames" in to_train(_config(tmp_path, tiny_hunyuan))
    text = load_config(language_recipe(tmp_path / "text", tiny_llama))
    assert "model.options.max_tokens, train.group_size" in to_train(text)
    assert "model.gradient_checkpointing" in to_train(text)
    assert "model.gradient_checkpointing" not in to_train(text, checkpoints=False)
    kto = load_config(language_recipe(tmp_path / "kto", tiny_llama, objective={"name": "kto"}))
    whole = needs_whole_batches(kto.objective)  # its loss looks at a micro-batch
    assert "begin again with --set train.micro_batch=4" in to_train(kto, whole_batches=whole)


@pytest.mark.parametrize("where", ["to the device", "from its files"])
def test_a_model_that_does_not_fit_is_one_line(
    tiny_flux: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OUT if where == "to the device" else CPU_OUT

    from diffusers import FluxPipeline, FluxTransformer2DModel

    if where == "to the device":
        monkeypatch.setattr(FluxTransformer2DModel, "to", full)
    else:
        monkeypatch.setattr(FluxPipeline, "from_pretrained", full)
    with pytest.raises(ParetuneError, match=r"^out of memory.*does not fit.*model\.dtype=bfloat16"):
        open_policy(ModelConfig.model_validate({"path": str(tiny_flux), **SIZE}))


def _jobs(folder: Path, pipeline: Path) -> dict[str, Callable[[], object]]:
    config = _config(folder, pipeline, "tokens.steps=2")
    plan = build_plan(config)
    first = plan.methods[0].rounds[0]
    made = (lambda event: None, lambda: False, ["cpu"])
    expert = {"transformer_blocks.0.attn.to_q": LowRank(torch.ones(16, 1), torch.ones(1, 16))}
    save_delta(folder / "expert", expert, str(pipeline), {})
    token = TokenTask("tokens/red", "red", 0, ("expert",))
    return {
        "map": lambda: train_expert(MapJob(config, first.tasks[0], folder, "m"), *made),
        "tokens": lambda: train_token(TokenJob(config, token, folder, "m"), *made),
        "evaluate": lambda: evaluate_subject(
            EvaluateJob(config, Subject("base", "base", (), 2, ()), folder, "m"), *made
        ),
        "sample": lambda: Sampler(open_source(str(pipeline))).draw(Request("a kite", "base")),
    }


@pytest.mark.parametrize("stage", ["map", "tokens", "evaluate", "sample"])
@pytest.mark.parametrize("method", ["embed", "velocity"])
def test_every_stage_says_so_in_one_line(
    tiny_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, method: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OUT

    monkeypatch.setattr(SD3Policy, method, full)
    with pytest.raises(ParetuneError, match=r"^out of memory on the accelerator: "):
        _jobs(tmp_path, tiny_sd3)[stage]()


def test_the_advice_is_followed_from_the_last_checkpoint(
    tiny_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = build_plan(config := _config(tmp_path, tiny_sd3))
    task, whole = plan.methods[0].rounds[0].tasks[0], SD3Policy.velocity
    events: list[dict[str, object]] = []

    def small(self: SD3Policy, x: torch.Tensor, *rest: Any) -> torch.Tensor:
        if events and len(x) > 1:  # from the second epoch on
            raise OUT
        return whole(self, x, *rest)

    monkeypatch.setattr(SD3Policy, "velocity", small)
    with pytest.raises(ParetuneError, match=r"--resume --set train\.micro_batch=3"):
        train_expert(MapJob(config, task, tmp_path, "m"), events.append, lambda: False, ["cpu"])
    assert [event["update"] for event in events] == [1]
    less = _config(tmp_path, tiny_sd3, "train.micro_batch=1", "model.gradient_checkpointing=true")
    assert changed_keys(config, less) == []
    made = train_expert(MapJob(less, task, tmp_path, "m"), events.append, lambda: False, ["cpu"])
    assert [event["update"] for event in events] == [1, 2]
    assert made["inputs"] == expert_inputs(MapJob(config, task, tmp_path, "m"))
    base = Subject("base", "base", (), 2, ())
    told = [digest_of(EvaluateJob(c, base, tmp_path, "m")) for c in (config, less)]
    assert told[0] == told[1]


def test_one_update_is_measured(tiny_flux: Path, tmp_path: Path) -> None:
    config = load_config(tiny_recipe(tmp_path, tiny_flux, model=SIZE))
    peak = measure_update(config, "cpu")
    assert peak.samples == 6
    assert peak.gigabytes > 0.1
    assert not peak.random_weights
    assert "GB at most on cpu" in str(peak)


def test_measured_hours_have_the_samples_of_reduce(
    tiny_flux: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paretune.planning.peak._timed", lambda step, device: 1.0)

    def hours(**reduce: Any) -> float:
        recipe = tiny_recipe(tmp_path, tiny_flux, model=SIZE, methods=["mapreduce"], rounds=1, reduce=reduce)
        config = load_config(recipe)
        peak = measure_update(config, "cpu", build_plan(config))
        assert peak.hours is not None
        return peak.hours["mapreduce"] * 3600 * peak.samples

    # 5 updates of 4 samples: 3 passes draw one, then each of 2 states has a pass of the expert and an update.
    student = hours(method="distil", options={"steps": 5, "batch": 4}) - hours()
    assert student == pytest.approx(5 * 4 * (3 + 2 * 2))


def test_a_hub_model_of_known_size_is_measured_with_random_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "black-forest-labs/FLUX.1-dev"
    published = by_hub_id()[name].published
    transformer = {
        "in_channels": 64, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 8,
        "num_attention_heads": 2, "joint_attention_dim": 32, "pooled_projection_dim": 32,
        "guidance_embeds": True, "axes_dims_rope": (2, 2, 4),
    }  # fmt: skip
    vae = {**published[name].vae, "block_out_channels": (4, 4, 4, 4), "norm_num_groups": 1}
    tiny = replace(published[name], transformer=transformer, vae=vae)
    monkeypatch.setitem(cast("dict[str, Published]", published), name, tiny)
    config = load_config(tiny_recipe(tmp_path, Path("x"), model={**SIZE, "path": name}))
    assert measure_update(config, "cpu").random_weights
    unknown = load_config(tiny_recipe(tmp_path, Path("x"), model={**SIZE, "path": "someone/else"}))
    with pytest.raises(ParetuneError, match="someone/else is none of them"):
        measure_update(unknown, "cpu")


@pytest.mark.parametrize("name", true_sizes.known_sizes())
def test_true_sizes_are_those_that_the_plan_counts(name: str) -> None:
    """On the meta device, which holds shapes and no weights."""
    config = ModelConfig.model_validate({"path": name, "dtype": "bfloat16"})
    policy = true_sizes.random_policy(config, "meta")
    assert policy is not None
    published = policy.family.published[name]
    for part in ("transformer", "vae"):
        count = sum(p.numel() for p in getattr(policy.pipe, part).parameters())
        assert count / 1e9 == pytest.approx(published.billions[part], abs=0.01)
    assert policy.transformer.dtype == torch.bfloat16
