"""Files of samples that carry their settings: a PNG in a text chunk, an MP4 in its comment; and grids.

Pixels here are bytes, as files store them: pictures are uint8 [B, 3, H, W], clips uint8 [B, T, 3, H, W].
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from ..types import ParetuneError, Samples
from .files import CLIPS, clip_bytes, read_comment

KEY = "paretune"
SMALL = 128  # a picture with a shorter side is shown enlarged in the grid
GAP = 4


def restored(samples: Samples) -> Samples:
    """Samples as rewards take them, from samples as files store them: pixels in [0, 1], texts unchanged.

    Pixels have the memory layout of `read_sample`, so that a reward gives bit-identical scores.
    """
    if not isinstance(samples, torch.Tensor):
        return samples
    return samples.movedim(-3, -1).contiguous().movedim(-1, -3).float() / 255


def stamped_png(picture: torch.Tensor, settings: Mapping[str, Any]) -> bytes:
    """A picture, uint8 [3, H, W], as a PNG that holds its settings as JSON in the text chunk `paretune`.

    Equal input gives equal bytes.
    """
    info = PngInfo()
    info.add_text(KEY, json.dumps(settings))  # ASCII, which tEXt requires
    file = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def stamped_clip(clip: torch.Tensor, settings: Mapping[str, Any]) -> bytes:
    """A clip, uint8 [T, 3, H, W], as an MP4 whose comment holds its settings as JSON under `paretune`."""
    return clip_bytes(clip, comment=json.dumps({KEY: settings}))


def read_settings(path: Path) -> dict[str, Any]:
    """Read the settings from a picture's or a clip's file."""
    try:
        if path.suffix.lower() in CLIPS:
            return json.loads(read_comment(path) or "{}")[KEY]
        with Image.open(path) as image:
            return json.loads(image.info[KEY])
    except UnidentifiedImageError as error:
        raise ParetuneError(f"{path} cannot be read as a picture") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ParetuneError(f"{path} carries no settings of paretune") from error


def grid(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """Rows of equally many pictures, uint8 [N, 3, H, W] -> [3, H', W'], with white gaps between them.

    Small pictures are enlarged.
    """
    times = max(1, -(-SMALL // min(rows[0].shape[-2:])))
    bands = []
    for pictures in rows:
        large = pictures.repeat_interleave(times, 2).repeat_interleave(times, 3)
        framed = torch.nn.functional.pad(large, (GAP, GAP, GAP, GAP), value=255)
        bands.append(torch.cat(list(framed), dim=2))
    return torch.cat(bands, dim=1)
