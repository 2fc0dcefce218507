"""Qwen-Image-Edit Plus on a tiny random pipeline. The two input pictures differ in size and proportions."""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from paretune.inputs.pictures import open_picture

from . import FamilyCase, qwen_image

SIDE = 32  # the pipelines' own is 1024
VISION = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>")


def make(folder: Path, kind: str = "QwenImageEditPlusPipeline") -> Path:
    """The parts of a tiny Qwen-Image, with a processor of pictures, in the pipeline of this class."""
    from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    path = qwen_image.make(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(path / "tokenizer")
    tokenizer.add_special_tokens({"additional_special_tokens": [*qwen_image.CHAT[1:], *VISION]})
    torch.manual_seed(1)
    encoder = qwen_image.text_encoder(len(tokenizer), 16)
    encoder.config.image_token_id = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert isinstance(encoder, Qwen2_5_VLForConditionalGeneration)
    encoder.save_pretrained(path / "text_encoder")
    for part in ("tokenizer", "processor"):
        tokenizer.save_pretrained(path / part)
    # The processor's own class writes this file, and needs torchvision to do so.
    sizes = {"shortest_edge": 32 * 32, "longest_edge": 1024 * 1024}
    Qwen2VLImageProcessorPil(patch_size=16, size=sizes).save_pretrained(path / "processor")
    index = json.loads((path / "model_index.json").read_text())
    index |= {"_class_name": kind, "processor": ["transformers", "Qwen2VLProcessor"]}
    (path / "model_index.json").write_text(json.dumps(index))
    return path


def draw(policy: Any, prompt: Any, noise: torch.Tensor, steps: int, guidance: float) -> torch.Tensor:
    """What the pipeline draws of one prompt, with its own size of pictures made small."""
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit as edit
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as plus

    whole = edit.calculate_dimensions
    with (
        patch.object(plus, "VAE_IMAGE_SIZE", SIDE * SIDE),
        patch.object(edit, "calculate_dimensions", lambda area, ratio: whole(SIDE * SIDE, ratio)),
    ):
        return policy.pipe(
            open_picture(prompt.image), str(prompt), " ", guidance, policy.shape.height, policy.shape.width,
            steps, latents=noise, output_type="pt",
        ).images  # fmt: skip


def _theirs(
    policy: Any, prompts: Sequence[Any], noise: torch.Tensor, steps: int, guidance: float
) -> torch.Tensor:
    drawn = [draw(policy, p, noise[i : i + 1], steps, guidance) for i, p in enumerate(prompts)]
    return torch.cat(drawn)


CASE = FamilyCase(
    name="qwen_image_edit",
    make=make,
    model={"height": 16, "width": 16, "guidance_scale": 4.0, "options": {"picture_side": SIDE}},
    recipe="qwen-image-edit",
    theirs=_theirs,
    guidances=(1.0, 4.0),
    tokens=("text_encoder",),
    pictures=((16, 16), (24, 8)),
)
