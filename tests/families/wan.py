"""Wan 2.1 text-to-video on a tiny random pipeline."""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from paretune.models.config_files import read_config
from paretune.models.family import Published
from tests.pipelines import PIECES

from . import FamilyCase

SHIFT = 3.0


def make_wan(
    folder: Path, two: bool = False, scheduler: Any = None, heads: int = 2, **index: Any
) -> Path:
    """A whole random WanPipeline folder: a VAE that compresses 2-fold in time and in space, one block.

    two: whether it has a transformer for high and one for low noise. index: settings of the pipeline.
    """
    from diffusers import (
        AutoencoderKLWan,
        FlowMatchEulerDiscreteScheduler,
        WanPipeline,
        WanTransformer3DModel,
    )
    from transformers import T5Tokenizer, UMT5Config, UMT5EncoderModel

    torch.manual_seed(0)
    tokenizer: Any = T5Tokenizer(vocab=PIECES, extra_ids=0)

    def transformer() -> WanTransformer3DModel:
        made = WanTransformer3DModel(
            num_attention_heads=heads, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=16,
            freq_dim=16, ffn_dim=32, num_layers=1, rope_max_seq_len=32,
        )  # fmt: skip
        torch.nn.init.normal_(made.scale_shift_table, std=0.3)
        return made

    pipe = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=UMT5EncoderModel(
            UMT5Config(vocab_size=len(PIECES), d_model=16, d_ff=32, d_kv=8, num_layers=1, num_heads=2)
        ),
        vae=AutoencoderKLWan(
            base_dim=4, z_dim=4, dim_mult=[1, 1], num_res_blocks=1, temperal_downsample=[True],
            latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[1.5, 0.7, 1.0, 2.0],
            scale_factor_temporal=2, scale_factor_spatial=2,
        ),
        scheduler=scheduler or FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        transformer=transformer(),
        transformer_2=transformer() if two else None,
        boundary_ratio=0.875 if two else None,
        **index,
    )  # fmt: skip
    pipe.save_pretrained(folder / "pipeline")
    return folder / "pipeline"


def published(folder: Path, parts: Sequence[str], **index: Any) -> Published:
    """The configurations of a tiny pipeline, as if it were a published model with these networks."""
    transformer, vae = (
        {key: value for key, value in read_config(folder / part / "config.json").items() if key[0] != "_"}
        for part in ("transformer", "vae")
    )
    return Published(dict.fromkeys(parts, 1e-6), transformer, vae, "AutoencoderKLWan", index=index)


def theirs(
    policy: Any, prompts: Sequence[str], noise: torch.Tensor, steps: int, guidance: float, **more: Any
) -> torch.Tensor:
    """What the pipeline itself draws."""
    return policy.pipe(
        list(prompts), latents=noise, num_inference_steps=steps, guidance_scale=guidance, output_type="pt",
        height=policy.shape.height, width=policy.shape.width, num_frames=policy.shape.frames,
        max_sequence_length=16, **more,
    ).frames  # fmt: skip


CASE = FamilyCase(
    name="wan",
    make=make_wan,
    model={"height": 16, "width": 16, "options": {"frames": 5, "max_sequence_length": 16}},
    recipe="wan2.1-1.3b",
    theirs=theirs,
    guidances=(1.0, 4.5),
    tokens=("text_encoder",),
)
