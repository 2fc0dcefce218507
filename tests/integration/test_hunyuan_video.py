"""The HunyuanVideo policy against plain diffusers, on a tiny random pipeline of the real format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from paretune.config import ModelConfig
from paretune.models.flow import Conditions, Sampling, sample
from paretune.models.hunyuan_video.policy import HunyuanVideoPolicy
from paretune.types import ParetuneError

PROMPTS = ["a red circle moves left quickly", "an orange cross moves up"]


def _policy(folder: Path, **changes: object) -> HunyuanVideoPolicy:
    size = {"height": 16, "width": 32, "options": {"frames": 9}}
    return HunyuanVideoPolicy(ModelConfig.model_validate({"path": str(folder), **size, **changes}))


def _theirs(policy: HunyuanVideoPolicy, noise: torch.Tensor, guidance: float) -> torch.Tensor:
    policy.load_text()
    return policy.pipe(
        PROMPTS, latents=noise, num_inference_steps=4, guidance_scale=guidance, output_type="pt",
        height=policy.shape.height, width=policy.shape.width, num_frames=policy.shape.frames,
    ).frames  # fmt: skip


@pytest.mark.parametrize("guidance", [1.0, 6.018])
def test_euler_sampling_is_the_pipelines_own(tiny_hunyuan: Path, guidance: float) -> None:
    policy = _policy(tiny_hunyuan)
    noise = policy.initial_noise(2, torch.Generator().manual_seed(0))
    assert noise.shape == (2, 4, 3, 8, 16)
    ours = policy.decode(sample(policy, policy.encode(PROMPTS, True), noise, Sampling(4, guidance)).clean)
    assert ours.shape == (2, 9, 3, 16, 32)
    torch.testing.assert_close(ours, _theirs(policy, noise, guidance), atol=1e-5, rtol=0)


def test_encodings_of_different_lengths_are_joined(tiny_hunyuan: Path) -> None:
    policy = _policy(tiny_hunyuan)
    parts = [policy.encode([prompt], False) for prompt in PROMPTS]
    assert parts[0].embeds.shape[1] != parts[1].embeds.shape[1]
    noise = policy.initial_noise(2, torch.Generator().manual_seed(0))
    joined = sample(policy, Conditions.join(parts), noise, Sampling(2, 1.0)).clean
    alone = [sample(policy, c, noise[i : i + 1], Sampling(2, 1.0)).clean for i, c in enumerate(parts)]
    torch.testing.assert_close(joined, torch.cat(alone), atol=1e-5, rtol=0)


def test_long_clips_are_decoded_in_tiles_as_the_pipeline_does(tiny_hunyuan: Path) -> None:
    policy = _policy(tiny_hunyuan, options={"frames": 29})
    noise = policy.initial_noise(2, torch.Generator().manual_seed(0))
    ours = policy.decode(sample(policy, policy.encode(PROMPTS, False), noise, Sampling(4, 1.0)).clean)
    assert ours.shape[1] == 29
    torch.testing.assert_close(ours, _theirs(policy, noise, 1.0), atol=1e-5, rtol=0)


def test_a_recipes_shift_is_the_schedules(tiny_hunyuan: Path) -> None:
    sigmas = _policy(tiny_hunyuan, options={"frames": 9, "shift": 5.0}).schedule(4).sigmas
    assert sigmas == pytest.approx((1.0, 0.9375, 0.83333, 0.625, 0.0), abs=1e-4)


def test_the_system_text_is_dropped_and_the_prompts_own_words_are_kept(tiny_hunyuan: Path) -> None:
    cond = _policy(tiny_hunyuan).encode(PROMPTS, False)
    assert cond.mask is not None
    assert cond.mask.sum(1).tolist() == [7, 6]  # its words and the end of the turn
    assert cond.embeds.shape[:2] == (2, 7)


@pytest.mark.parametrize(
    ("size", "told"),
    [
        ({"options": {"frames": 8}}, r"frames: 8 does not fit this model: give 4 k \+ 1, such as 53"),
        ({"height": 26}, "height: 26 does not fit this model: give a multiple of 16, such as 32"),
    ],
)
def test_sizes_that_do_not_fit_are_one_line(tiny_hunyuan: Path, size: dict[str, Any], told: str) -> None:
    with pytest.raises(ParetuneError, match=told):
        _policy(tiny_hunyuan, **size)
