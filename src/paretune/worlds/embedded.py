"""The models that come with paretune: names, folders, and what they want where no recipe says it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_WORLDS = Path(__file__).parent
# The name of an embedded model, and its folder in that of its world.
EMBEDDED = {
    "pictures": _WORLDS / "pictures" / "checkpoint",
    "pictures-flux": _WORLDS / "pictures" / "flux",
    "clips": _WORLDS / "clips" / "checkpoint",
    "assistant": _WORLDS / "assistant" / "checkpoint",
}
# A small context, or a size that its pipeline takes for granted to be FLUX's.
SETTINGS: dict[str, dict[str, Any]] = {
    "assistant": {"options": {"max_tokens": 40}},
    "pictures-flux": {"height": 32, "width": 32, "options": {"max_sequence_length": 16}},
}
