"""What the big models need: embeddings kept on disk, encoders that leave, one line when memory is out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from paretune.config import ModelConfig
from paretune.peak import measure_update
from paretune.policies import true_sizes
from paretune.policies.flux import FluxPolicy
from paretune.policies.memory import memory_errors
from paretune.policies.pipelines import PipelinePolicy
from paretune.policies.tokens import Scaled
from paretune.recipes import load_config
from paretune.types import ParetuneError
from tests.conftest import tiny_recipe

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
    with pytest.raises(ParetuneError, match=r"model\.path: .*broken (cannot be loaded|lacks)"):
        _policy(broken).encode(["a red circle"], False)


def test_out_of_memory_is_one_line_that_says_what_would_fit() -> None:
    with pytest.raises(ParetuneError, match=r"--set train\.micro_batch=4") as error, \
            memory_errors("train.micro_batch=4"):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    assert "\n" not in str(error.value)


def test_one_update_is_measured(tiny_flux: Path, tmp_path: Path) -> None:
    config = load_config(tiny_recipe(tmp_path, tiny_flux, model=SIZE))
    peak = measure_update(config, "cpu")
    assert peak.samples == 6
    assert peak.gigabytes > 0.1
    assert not peak.random_weights
    assert "GB at most on cpu" in str(peak)


def test_a_hub_model_of_known_size_is_measured_with_random_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel

    def tiny(config: ModelConfig, device: str) -> PipelinePolicy:
        build = lambda: FluxTransformer2DModel(  # noqa: E731
            in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
            joint_attention_dim=32, pooled_projection_dim=32, guidance_embeds=True, axes_dims_rope=(2, 2, 4),
        )
        vae = {**true_sizes.FLUX_VAE, "block_out_channels": (4, 4, 4, 4), "norm_num_groups": 1}
        parts = {"transformer": true_sizes._random(build, config, device), "vae": AutoencoderKL(**vae)}
        return true_sizes._policy(FluxPolicy, FluxPipeline, parts, config, device)

    name = "black-forest-labs/FLUX.1-dev"
    monkeypatch.setitem(true_sizes.SIZES, name, tiny)
    config = load_config(tiny_recipe(tmp_path, Path("x"), model={**SIZE, "path": name}))
    assert measure_update(config, "cpu").random_weights
    unknown = load_config(tiny_recipe(tmp_path, Path("x"), model={**SIZE, "path": "someone/else"}))
    with pytest.raises(ParetuneError, match="someone/else is none of them"):
        measure_update(unknown, "cpu")
