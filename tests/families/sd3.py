"""Stable Diffusion 3.5 on a tiny random pipeline with all three text encoders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tests.pipelines import make_sd3

from . import FamilyCase


def _make(folder: Path) -> Path:
    return make_sd3(folder, t5=True)


def _theirs(
    policy: Any, prompts: Sequence[str], noise: torch.Tensor, steps: int, guidance: float
) -> torch.Tensor:
    return policy.pipe(
        list(prompts), latents=noise, num_inference_steps=steps, guidance_scale=guidance, output_type="pt",
        height=policy.shape.height, width=policy.shape.width, max_sequence_length=16,
    ).images  # fmt: skip


CASE = FamilyCase(
    name="sd3",
    make=_make,
    model={"height": 16, "width": 16, "options": {"load_t5": True, "max_sequence_length": 16}},
    recipe="sd35-medium",
    theirs=_theirs,
    guidances=(1.0, 4.5),
    tokens=("text_encoder", "text_encoder_2", "text_encoder_3"),
)
