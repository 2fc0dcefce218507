"""How Qwen2.5-VL is given texts and pictures: as by transformers' Qwen2VLProcessor, with Pillow alone.

That processor cannot be made without torchvision, which its part for videos needs. And it has a tokenizer of
its own, which reward tokens could not join.
"""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image
from transformers import BatchFeature
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from ...foreign.loading import load
from .family import LONGEST

PAD = "<|image_pad|>"  # written once in a template, and repeated for every token of the picture


class Reader:
    """In the place of a pipeline's `processor`. place: the pipeline's folder or hub id."""

    def __init__(self, pipe: Any, place: str) -> None:
        self.pipe = pipe
        what = f"model.path: {place}"
        self.images: Any = load(Qwen2VLImageProcessorPil, place, what, subfolder="processor")

    def __call__(self, text: Sequence[str], images: Image.Image, **settings: Any) -> BatchFeature:
        """Ids, mask and patches of one text with one picture.

        settings: as the pipeline gives them to the processor; they are those that are used here.
        """
        seen = self.images(images=[images], return_tensors="pt")
        count = int(seen["image_grid_thw"][0].prod()) // self.images.merge_size**2
        whole = [one.replace(PAD, PAD * count, 1) for one in text]
        rows = self.pipe.tokenizer(
            whole, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt"
        )
        return BatchFeature({**rows, **seen})
