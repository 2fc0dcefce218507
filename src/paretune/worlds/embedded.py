"""The models that are part of paretune: their names, folders and default settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_WORLDS = Path(__file__).parent
# Name of an embedded model -> its folder, in the folder of its world.
EMBEDDED = {
    "pictures": _WORLDS / "pictures" / "checkpoint",
    "pictures-told": _WORLDS / "pictures" / "told",  # whose captions' endings tell of mistakes and of style
    "pictures-flux": _WORLDS / "pictures" / "flux",
    "clips": _WORLDS / "clips" / "checkpoint",
    "assistant": _WORLDS / "assistant" / "checkpoint",
}
# Default settings under `model:`: the assistant has a small context, and FluxPipeline assumes FLUX's size.
SETTINGS: dict[str, dict[str, Any]] = {
    "assistant": {"options": {"max_tokens": 40}},
    "pictures-flux": {"height": 32, "width": 32, "options": {"max_sequence_length": 16}},
}
