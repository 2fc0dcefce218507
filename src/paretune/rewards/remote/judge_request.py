"""A question to a chat endpoint about one sample: messages with pictures as PNG data URLs."""

from __future__ import annotations

import base64
import io
from typing import Any

import torch
from PIL import Image


def messages_of(question: str, system: str | None, sample: Any, frames: int) -> list[dict[str, Any]]:
    """The messages.

    sample: a picture [3, H, W] or a clip [T, 3, H, W] in [0, 1], or a text, which the question holds already.
    frames: of a clip, evenly spaced from the first to the last.
    """
    before = [] if system is None else [{"role": "system", "content": system}]
    if isinstance(sample, str):
        return [*before, {"role": "user", "content": question}]
    shown = sample[None] if sample.dim() == 3 else spaced(sample, frames)
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": data_url(picture)}} for picture in shown
    ]
    return [*before, {"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


def spaced(clip: torch.Tensor, frames: int) -> torch.Tensor:
    """At most `frames` frames, evenly spaced. [T, ...] -> [F, ...]."""
    count = min(len(clip), frames)
    return clip[torch.linspace(0, len(clip) - 1, count).round().long()]


def data_url(picture: torch.Tensor) -> str:
    """A picture [3, H, W] in [0, 1] as a PNG in a data URL. Equal pictures give equal texts."""
    pixels = (picture.detach().cpu().float().clamp(0, 1) * 255).round().byte()
    file = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
