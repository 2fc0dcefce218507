"""What a user is told before a run: lines about the model and about prompts that are cut."""

from __future__ import annotations

from ..config import RunConfig
from ..foreign import gguf
from .long_prompts import cut_notices


def notices(config: RunConfig, hub: bool = True) -> list[str]:
    """All lines. hub: whether datasets of the hub are loaded, which may download them."""
    return [*gguf.notices(config.model.path), *cut_notices(config, hub)]
