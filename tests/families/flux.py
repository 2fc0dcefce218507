"""FLUX.1 on a tiny random pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tests.pipelines import make_flux

from . import FamilyCase


def _theirs(
    policy: Any, prompts: Sequence[str], noise: torch.Tensor, steps: int, guidance: float
) -> torch.Tensor:
    return policy.pipe(
        list(prompts), latents=noise, num_inference_steps=steps, guidance_scale=guidance, output_type="pt",
        height=policy.shape.height, width=policy.shape.width, max_sequence_length=16,
    ).images  # fmt: skip


CASE = FamilyCase(
    name="flux",
    make=make_flux,
    model={"height": 16, "width": 16, "options": {"max_sequence_length": 16}},
    recipe="flux1-dev",
    theirs=_theirs,
    guidances=(1.0, 3.5),
    tokens=("text_encoder", "text_encoder_2"),
)
