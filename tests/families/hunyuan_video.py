"""HunyuanVideo on a tiny random pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tests.pipelines import make_hunyuan

from . import FamilyCase


def _theirs(
    policy: Any, prompts: Sequence[str], noise: torch.Tensor, steps: int, guidance: float
) -> torch.Tensor:
    return policy.pipe(
        list(prompts), latents=noise, num_inference_steps=steps, guidance_scale=guidance, output_type="pt",
        height=policy.shape.height, width=policy.shape.width, num_frames=policy.shape.frames,
        max_sequence_length=16,
    ).frames  # fmt: skip


CASE = FamilyCase(
    name="hunyuan_video",
    make=make_hunyuan,
    model={"height": 16, "width": 16, "options": {"frames": 5, "max_sequence_length": 16}},
    recipe="hunyuan-video",
    theirs=_theirs,
    guidances=(1.0, 6.0),
    tokens=("text_encoder", "text_encoder_2"),
)
