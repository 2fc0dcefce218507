"""Wan 2.2 text-to-video on a tiny random pipeline with two transformers, for high and for low noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from . import FamilyCase
from .wan import make_wan, theirs


def _make(folder: Path) -> Path:
    return make_wan(folder, two=True)


def _theirs(
    policy: Any, prompts: Sequence[str], noise: torch.Tensor, steps: int, guidance: float
) -> torch.Tensor:
    return theirs(policy, prompts, noise, steps, guidance, guidance_scale_2=3.0)


def _load_lora(pipe: Any, folder: Path) -> None:
    """Both files, as the users of diffusers do."""
    pipe.load_lora_weights(str(folder))
    second = "pytorch_lora_weights_2.safetensors"
    pipe.load_lora_weights(str(folder), weight_name=second, load_into_transformer_2=True)


CASE = FamilyCase(
    name="wan22",
    make=_make,
    model={
        "height": 16, "width": 16,
        "options": {"frames": 5, "max_sequence_length": 16, "guidance_scale_2": 3.0},
    },
    recipe="wan2.2-a14b",
    theirs=_theirs,
    guidances=(1.0, 4.0),
    tokens=("text_encoder",),
    load_lora=_load_lora,
)  # fmt: skip
