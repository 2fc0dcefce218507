"""Texts and pictures as Qwen2.5-VL reads them, in the place of transformers' Qwen2VLProcessor.

That class cannot be made without torchvision, which only its part for videos needs. Its part for pictures is
used here, and its rule for texts: a mark stands once for each token of its picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import BatchEncoding

MARK = "<|image_pad|>"
LONGEST = 131_072  # tokens that Qwen2.5-VL reads, for a tokenizer that names no limit


class PictureReader:
    """pipe: whose tokenizer of the moment is used, which may add reward tokens. images: of pictures."""

    def __init__(self, pipe: Any, images: Any) -> None:
        self._pipe, self.images = pipe, images

    def __call__(self, text: Sequence[str], images: Any, **settings: Any) -> BatchEncoding:
        """The ids and masks of texts, and the patches of the pictures whose marks they hold, in order."""
        seen = self.images(images=images, return_tensors="pt")
        merged = self.images.merge_size**2
        counts = iter((seen["image_grid_thw"].prod(-1) // merged).tolist())
        whole = []
        for one in text:
            first, *rest = one.split(MARK)
            whole.append(first + "".join(MARK * next(counts) + part for part in rest))
        # Only a text that has a limit can take reward tokens. No text comes near this one.
        limit = min(self._pipe.tokenizer.model_max_length, LONGEST)
        read = self._pipe.tokenizer(whole, truncation=True, max_length=limit, **settings)
        return BatchEncoding({**read, **seen})
