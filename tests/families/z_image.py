"""Z-Image on a tiny random pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tests.chats import qwen3, qwen3_tokenizer

from . import FamilyCase


def make(folder: Path) -> Path:
    """A whole random ZImagePipeline folder: a VAE that halves, one block and one of each refiner."""
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        ZImagePipeline,
        ZImageTransformer2DModel,
    )

    torch.manual_seed(0)
    tokenizer = qwen3_tokenizer()
    transformer = ZImageTransformer2DModel(
        in_channels=4, dim=16, n_layers=1, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=16,
        axes_dims=[4, 2, 2], axes_lens=[256, 32, 32],
    )  # fmt: skip
    # Both are zero in a new model, and the pipeline's results would not depend on them.
    torch.nn.init.normal_(transformer.x_pad_token)
    torch.nn.init.normal_(transformer.cap_pad_token)
    pipe = ZImagePipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=AutoencoderKL(
            block_out_channels=(4, 4), down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=1,
            scaling_factor=0.4, shift_factor=0.1, use_quant_conv=False, use_post_quant_conv=False,
        ),
        text_encoder=qwen3(tokenizer, 16, 2).model,  # the published model_index.json names a Qwen3Model
        tokenizer=tokenizer,
    )  # fmt: skip
    pipe.save_pretrained(folder / "pipeline")
    return folder / "pipeline"


def _theirs(
    policy: Any, prompts: Sequence[str], noise: torch.Tensor, steps: int, guidance: float
) -> torch.Tensor:
    return policy.pipe(
        list(prompts), latents=noise, num_inference_steps=steps, guidance_scale=guidance, output_type="pt",
        height=policy.shape.height, width=policy.shape.width, max_sequence_length=64,
    ).images  # fmt: skip


CASE = FamilyCase(
    name="z_image",
    make=make,
    model={"height": 16, "width": 16, "guidance_scale": 2.0, "options": {"max_sequence_length": 64}},
    recipe="z-image",
    theirs=_theirs,
    guidances=(0.0, 2.0),
    tokens=("text_encoder",),
)
