"""Wan 2.1 image-to-video on a tiny random pipeline with an encoder of the input picture."""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers.pipelines.wan import pipeline_wan_i2v
from diffusers.utils import is_ftfy_available

from paretune.inputs.pictures import open_picture

from . import FamilyCase
from .wan import make_wan


def make_wan_i2v(folder: Path, two: bool = False, **index: Any) -> Path:
    """The parts of a tiny Wan, with 2.1's transformer for pictures, or two of 2.2's and no encoder."""
    from diffusers import WanImageToVideoPipeline, WanPipeline, WanTransformer3DModel
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    parts = WanPipeline.from_pretrained(make_wan(folder / "wan"))
    torch.manual_seed(1)

    def transformer() -> Any:
        own: dict[str, Any] = {} if two else {"image_dim": 8, "added_kv_proj_dim": 24}
        made = WanTransformer3DModel(
            num_attention_heads=2, attention_head_dim=12, in_channels=4 + 2 + 4, out_channels=4, text_dim=16,
            freq_dim=16, ffn_dim=32, num_layers=1, rope_max_seq_len=32, **own,
        )  # fmt: skip
        torch.nn.init.normal_(made.scale_shift_table, std=0.3)
        return made

    encoder = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2, image_size=16,
            patch_size=8,
        )
    )  # fmt: skip
    small = {"shortest_edge": 16}
    made: dict[str, Any] = {"transformer": transformer()}
    made |= {"transformer_2": transformer(), "boundary_ratio": 0.9} if two else {"image_encoder": encoder}
    pipe = WanImageToVideoPipeline(
        tokenizer=parts.tokenizer, text_encoder=parts.text_encoder, vae=parts.vae, scheduler=parts.scheduler,
        image_processor=CLIPImageProcessor(size=small, crop_size={"height": 16, "width": 16}),
        **made, **index,
    )  # fmt: skip
    pipe.save_pretrained(folder / "pipeline")
    return folder / "pipeline"


def theirs(
    policy: Any, prompts: Sequence[Any], noise: torch.Tensor, steps: int, guidance: float
) -> torch.Tensor:
    """What the pipeline itself draws, which takes one picture at a time."""
    if not is_ftfy_available():  # which the pipeline calls nevertheless, and which changes no ASCII text
        setattr(pipeline_wan_i2v, "ftfy", SimpleNamespace(fix_text=str))  # noqa: B010
    drawn = [
        policy.pipe(
            open_picture(prompt.image), str(prompt), latents=noise[i : i + 1], num_inference_steps=steps,
            guidance_scale=guidance, output_type="pt", height=policy.shape.height, width=policy.shape.width,
            num_frames=policy.shape.frames,
        ).frames
        for i, prompt in enumerate(prompts)
    ]  # fmt: skip
    return torch.cat(drawn)


CASE = FamilyCase(
    name="wan_i2v",
    make=make_wan_i2v,
    model={"height": 16, "width": 16, "options": {"frames": 5}},
    recipe="wan2.1-i2v-14b",
    theirs=theirs,
    guidances=(1.0, 5.0),
    tokens=("text_encoder",),
    pictures=((16, 16), (24, 13)),
)
