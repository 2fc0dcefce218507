"""The SD3 policy against plain diffusers, on tiny random pipelines of the real format."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from paretune.adapters.store import save_delta
from paretune.config import ModelConfig
from paretune.models.flow import Sampling, sample
from paretune.models.lora import fold
from paretune.models.sd3.policy import SD3Policy, load_pipeline
from paretune.ops.lowrank import LowRank

PROMPTS = ["a red circle", "a sign saying kite"]


def _pipeline_pictures(policy: SD3Policy, noise: torch.Tensor, guidance: float) -> torch.Tensor:
    return policy.pipe(
        PROMPTS, latents=noise, num_inference_steps=4, guidance_scale=guidance, output_type="pt",
        max_sequence_length=policy.t5_tokens,
    ).images  # fmt: skip


@pytest.mark.parametrize("guidance", [1.0, 4.5])
@pytest.mark.parametrize("t5", [False, True])
def test_euler_sampling_is_the_pipelines_own(
    tiny_sd3: Path, tiny_sd3_t5: Path, guidance: float, t5: bool
) -> None:
    policy = SD3Policy(ModelConfig(path=str(tiny_sd3_t5 if t5 else tiny_sd3), options={"load_t5": t5}))
    noise = policy.initial_noise(2, torch.Generator().manual_seed(0))
    conditions = policy.encode(PROMPTS, guidance > 1)
    ours = policy.decode(sample(policy, conditions, noise, Sampling(4, guidance)).clean)
    torch.testing.assert_close(ours, _pipeline_pictures(policy, noise, guidance), atol=1e-5, rtol=0)


def test_t5_changes_the_condition_and_its_absence_adds_no_zero_tokens(
    tiny_sd3: Path, tiny_sd3_t5: Path
) -> None:
    without = SD3Policy(ModelConfig(path=str(tiny_sd3))).encode(PROMPTS, False)
    longer = ModelConfig(path=str(tiny_sd3), options={"max_sequence_length": 256})
    padded = SD3Policy(longer).encode(PROMPTS, False)
    with_t5 = SD3Policy(ModelConfig(path=str(tiny_sd3_t5), options={"load_t5": True})).encode(PROMPTS, False)
    assert without.embeds.shape == (2, 16, 128)
    assert padded.embeds.shape == with_t5.embeds.shape == (2, 16 + 256, 128)
    assert not padded.embeds[:, 16:].any()
    assert with_t5.embeds[:, 16:].any()


def test_bfloat16_base_gives_nearly_the_same_pictures(tiny_sd3: Path) -> None:
    pictures = []
    for dtype in ("float32", "bfloat16"):
        policy = SD3Policy(ModelConfig(path=str(tiny_sd3), dtype=dtype))
        noise = policy.initial_noise(2, torch.Generator().manual_seed(0))
        clean = sample(policy, policy.encode(PROMPTS, False), noise, Sampling(4, 1.0)).clean
        pictures.append(policy.decode(clean))
    assert (pictures[0] - pictures[1]).abs().mean() < 0.02


def test_an_adapter_gives_the_same_pictures_folded_and_through_plain_diffusers_and_peft(
    tiny_sd3: Path, tmp_path: Path
) -> None:
    from peft import PeftModel

    generator = torch.Generator().manual_seed(1)
    deltas = {
        f"transformer_blocks.{block}.attn.{name}": LowRank(
            torch.randn(16, rank, generator=generator) * 0.3, torch.randn(rank, 16, generator=generator) * 0.3
        )
        for block in (0, 1)
        for name, rank in (("to_q", 2), ("add_k_proj", 5))
    }
    save_delta(tmp_path / "adapter", deltas, str(tiny_sd3), {})
    config = ModelConfig(path=str(tiny_sd3))
    policies = [SD3Policy(config) for _ in range(4)]
    base, folded, by_diffusers, by_peft = policies
    fold(folded.transformer, deltas)
    by_diffusers.pipe.load_lora_weights(str(tmp_path / "adapter"))
    by_peft.pipe.transformer = PeftModel.from_pretrained(by_peft.transformer, str(tmp_path / "adapter"))
    noise = base.initial_noise(2, torch.Generator().manual_seed(0))
    pictures = [_pipeline_pictures(p, noise, 1.0) for p in policies]
    assert (pictures[0] - pictures[1]).abs().max() > 1e-3
    torch.testing.assert_close(pictures[2], pictures[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(pictures[3], pictures[1], atol=1e-5, rtol=0)


def test_load_pipeline_drops_t5_unless_asked(tiny_sd3_t5: Path) -> None:
    assert load_pipeline(ModelConfig(path=str(tiny_sd3_t5))).text_encoder_3 is None
    with_t5 = ModelConfig(path=str(tiny_sd3_t5), options={"load_t5": True})
    assert load_pipeline(with_t5).text_encoder_3 is not None
