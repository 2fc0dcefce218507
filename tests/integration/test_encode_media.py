"""Pixels become latents and come back: what data that no rollout drew is trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from paretune.config import ModelConfig
from paretune.models.flow import FlowPolicy
from paretune.models.loading import open_policy
from paretune.types import ParetuneError

EMBEDDED = ["pictures", "clips"]
FLUX = {"height": 16, "width": 16, "options": {"max_sequence_length": 16}}
VIDEO = {"height": 16, "width": 16, "options": {"frames": 5, "max_sequence_length": 16}}


def _policy(path: Any, **settings: Any) -> Any:
    return open_policy(ModelConfig.model_validate({"path": str(path), **settings}))


def _random(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", EMBEDDED)
def test_pixels_come_back_from_the_latents_of_an_embedded_model(name: str) -> None:
    """Its autoencoder is the identity, rearranged and rescaled."""
    policy: FlowPolicy = _policy(name)
    noise = policy.initial_noise(2, torch.Generator().manual_seed(1))
    pixels = _random(tuple(policy.decode(noise).shape))
    latents = policy.encode_media(pixels)
    assert latents.shape == noise.shape
    assert latents.dtype == torch.float32
    torch.testing.assert_close(policy.decode(latents), pixels, atol=1e-3, rtol=0)


def test_the_latents_are_scaled_as_the_pipelines_image_to_image_variant_does(tiny_sd3: Path) -> None:
    policy = _policy(tiny_sd3)
    pixels, config = _random((2, 3, 16, 16)), policy.vae.config
    with torch.no_grad():
        mean = policy.vae.encode(2 * pixels - 1).latent_dist.mode()
    expected = (mean - config.shift_factor) * config.scaling_factor
    torch.testing.assert_close(policy.encode_media(pixels, batch=1), expected, atol=1e-5, rtol=1e-5)


def test_fluxs_latents_are_packed_as_its_pipeline_packs_them(tiny_flux: Path) -> None:
    from diffusers.pipelines.flux.pipeline_flux import FluxPipeline

    policy = _policy(tiny_flux, **FLUX)
    pixels = _random((3, 3, 16, 16))
    latents = policy.encode_media(pixels)
    assert latents.shape == policy.initial_noise(3, torch.Generator()).shape
    with torch.no_grad():
        mean = policy.vae.encode(2 * pixels - 1).latent_dist.mode()
    plain = FluxPipeline._unpack_latents(latents, 16, 16, policy.pipe.vae_scale_factor)
    torch.testing.assert_close(plain, (mean - 0.1) * 0.4, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(policy.unscale(latents), mean, atol=1e-5, rtol=1e-5)


def test_a_clip_is_encoded_frames_and_all(tiny_hunyuan: Path) -> None:
    policy = _policy(tiny_hunyuan, **VIDEO)
    latents = policy.encode_media(_random((2, 5, 3, 16, 16)))
    assert latents.shape == policy.initial_noise(2, torch.Generator()).shape
    alone = policy.encode_media(_random((2, 5, 3, 16, 16))[1:])
    torch.testing.assert_close(latents[1:], alone, atol=1e-5, rtol=1e-4)
    with pytest.raises(ParetuneError, match=r"a clip of 4 frames cannot be encoded: the model's have 5 "):
        policy.encode_media(_random((1, 4, 3, 16, 16)))


def test_pixels_of_another_size_are_one_line(tiny_flux: Path) -> None:
    with pytest.raises(ParetuneError, match=r"^samples of 8x4 pixels cannot be encoded: the model's are 16x"):
        _policy(tiny_flux, **FLUX).encode_media(_random((1, 3, 4, 8)))
