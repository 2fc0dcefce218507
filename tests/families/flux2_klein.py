"""FLUX.2-klein on a tiny random pipeline, not distilled."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.chats import qwen3, qwen3_tokenizer

from . import FamilyCase
from .flux2 import random_parts, theirs


def make(folder: Path, distilled: bool = False) -> Path:
    """A whole random Flux2KleinPipeline folder."""
    from diffusers import Flux2KleinPipeline

    torch.manual_seed(0)
    tokenizer = qwen3_tokenizer()
    encoder = qwen3(tokenizer, 16, 28)
    parts = random_parts(16, False)
    pipe = Flux2KleinPipeline(tokenizer=tokenizer, text_encoder=encoder, is_distilled=distilled, **parts)
    pipe.save_pretrained(folder / "pipeline")
    return folder / "pipeline"


CASE = FamilyCase(
    name="flux2_klein",
    make=make,
    model={"height": 16, "width": 16, "guidance_scale": 3.0, "options": {"max_sequence_length": 64}},
    recipe="flux2-klein",
    theirs=theirs,
    guidances=(1.0, 3.0),
    tokens=("text_encoder",),
)
