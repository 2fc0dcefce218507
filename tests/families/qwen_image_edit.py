"""Qwen-Image-Edit on a tiny random pipeline. The two input pictures differ in shape."""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from paretune.inputs.pictures import open_picture

from . import FamilyCase
from .qwen_image import make as make_qwen

PIXELS = 32 * 32


def _make(folder: Path) -> Path:
    """The parts of a tiny Qwen-Image in the pipeline that edits, with the settings of its processor.

    Transformers' own processor cannot be made without torchvision, so its file is written here.
    """
    from diffusers import QwenImageEditPipeline, QwenImagePipeline
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    parts = QwenImagePipeline.from_pretrained(make_qwen(folder / "text")).components
    pads = {"additional_special_tokens": ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]}
    parts["tokenizer"].add_special_tokens(pads, replace_extra_special_tokens=False)
    encoder = parts["text_encoder"]
    encoder.resize_token_embeddings(len(parts["tokenizer"]))
    first = parts["tokenizer"].convert_tokens_to_ids(pads["additional_special_tokens"])
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id")
    for name, number in zip(names, first, strict=True):
        setattr(encoder.config, name, number)
    QwenImageEditPipeline(**{**parts, "processor": None}).save_pretrained(folder / "pipeline")
    seen = Qwen2VLImageProcessorPil(
        patch_size=4, merge_size=2, size={"shortest_edge": 256, "longest_edge": 4096}
    )
    seen.save_pretrained(folder / "pipeline" / "processor")
    index = folder / "pipeline" / "model_index.json"
    table = {**json.loads(index.read_text()), "processor": ["transformers", "Qwen2VLProcessor"]}
    index.write_text(json.dumps(table))
    return folder / "pipeline"


def _theirs(
    policy: Any, prompts: Sequence[Any], noise: torch.Tensor, steps: int, guidance: float
) -> torch.Tensor:
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit as edit

    whole = edit.calculate_dimensions
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edit, "calculate_dimensions", lambda area, ratio: whole(PIXELS, ratio))
        drawn = [
            policy.pipe(
                open_picture(prompt.image), str(prompt), " ", guidance, policy.shape.height,
                policy.shape.width, steps, latents=noise[i : i + 1], output_type="pt",
            ).images
            for i, prompt in enumerate(prompts)
        ]  # fmt: skip
    return torch.cat(drawn)


CASE = FamilyCase(
    name="qwen_image_edit",
    make=_make,
    model={"height": 16, "width": 16, "guidance_scale": 4.0, "options": {"picture_pixels": PIXELS}},
    recipe="qwen-image-edit",
    theirs=_theirs,
    guidances=(1.0, 4.0),
    tokens=("text_encoder",),
    pictures=((40, 40), (90, 30)),
)
