"""The FLUX policy against plain diffusers, on a tiny random pipeline of the real format."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from paretune.config import ModelConfig
from paretune.models.flow import Sampling, sample
from paretune.models.flux.policy import FluxPolicy
from tests.pipelines import make_flux

PROMPTS = ["a red circle", "a sign saying kite"]
SIZE, TEXT = {"height": 16, "width": 24}, {"max_sequence_length": 20}


def _policy(folder: Path, **changes: object) -> FluxPolicy:
    return FluxPolicy(ModelConfig.model_validate({"path": str(folder), **SIZE, "options": TEXT, **changes}))


@pytest.mark.parametrize("guidance", [1.0, 3.5])
@pytest.mark.parametrize("dynamic", [True, False])
def test_euler_sampling_is_the_pipelines_own(tmp_path: Path, guidance: float, dynamic: bool) -> None:
    policy = _policy(make_flux(tmp_path, use_dynamic_shifting=dynamic))
    noise = policy.initial_noise(2, torch.Generator().manual_seed(0))
    assert noise.shape == (2, 4 * 6, 16)  # 8 x 12 latents of 4 channels, packed by 2 x 2
    ours = policy.decode(sample(policy, policy.encode(PROMPTS, True), noise, Sampling(4, guidance)).clean)
    policy.load_text()
    theirs = policy.pipe(
        PROMPTS, latents=noise, num_inference_steps=4, guidance_scale=guidance, output_type="pt",
        **SIZE, **TEXT,
    ).images  # fmt: skip
    assert ours.shape == (2, 3, 16, 24)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_the_embedded_guidance_and_both_encoders_are_heard(tiny_flux: Path) -> None:
    policy = _policy(tiny_flux)
    cond = policy.encode(PROMPTS, False)
    x, sigma = policy.initial_noise(2, torch.Generator().manual_seed(0)), torch.full((2,), 0.5)
    base = policy.velocity(x, sigma, cond, 3.5)
    assert (policy.velocity(x, sigma, cond, 1.0) - base).abs().max() > 1e-4
    for part in ("embeds", "pooled"):
        swapped = type(cond)(**{**cond.__dict__, part: getattr(cond, part).flip(0)})
        assert (policy.velocity(x, sigma, swapped, 3.5) - base).abs().max() > 1e-5


def test_adapters_go_to_attention_and_feed_forward_of_both_streams(tiny_flux: Path) -> None:
    from paretune.config import LoraConfig
    from paretune.models.lora import attach_policy, policy_deltas

    policy = _policy(tiny_flux)
    parameters = attach_policy(policy.transformer, LoraConfig(rank=2), policy.targets, seed=0)
    modules = set(policy_deltas(policy.transformer, parameters))
    dual = {f"transformer_blocks.0.{t}" for t in policy.targets}
    single = {f"single_transformer_blocks.0.attn.to_{x}" for x in "qkv"}
    assert modules == dual | single
