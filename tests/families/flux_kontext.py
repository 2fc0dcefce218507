"""FLUX.1-Kontext on a tiny random pipeline. The two input pictures differ in size."""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from paretune.inputs.pictures import open_picture
from tests.pipelines import make_flux

from . import FamilyCase


def _make(folder: Path) -> Path:
    """The parts of a tiny FLUX in Kontext's pipeline."""
    from diffusers import FluxKontextPipeline

    pipe = FluxKontextPipeline.from_pretrained(make_flux(folder / "flux"))
    pipe.save_pretrained(folder / "pipeline")
    return folder / "pipeline"


def _theirs(
    policy: Any, prompts: Sequence[Any], noise: torch.Tensor, steps: int, guidance: float
) -> torch.Tensor:
    height, width = policy.shape.height, policy.shape.width
    drawn = [
        policy.pipe(
            open_picture(prompt.image), str(prompt), latents=noise[i : i + 1], num_inference_steps=steps,
            guidance_scale=guidance, output_type="pt", height=height, width=width, max_area=height * width,
            max_sequence_length=16, _auto_resize=False,
        ).images
        for i, prompt in enumerate(prompts)
    ]  # fmt: skip
    return torch.cat(drawn)


CASE = FamilyCase(
    name="flux_kontext",
    make=_make,
    model={"height": 16, "width": 16, "options": {"max_sequence_length": 16, "resize_picture": False}},
    recipe="flux1-kontext",
    theirs=_theirs,
    guidances=(1.0, 3.5),
    tokens=("text_encoder", "text_encoder_2"),
    pictures=((16, 16), (24, 13)),
)
