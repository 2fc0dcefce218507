"""What a user is told before a run: lines about the model and about prompts that are cut."""

from __future__ import annotations

from ..config import RunConfig
from ..foreign import gguf
from .long_prompts import cut_notices, pair_files


def notices(config: RunConfig, hub: bool = True) -> list[str]:
    """All lines. hub: whether datasets of the hub are loaded, which may download them."""
    return [*gguf.notices(config.model.path), *cut_notices(config, hub), *tie_notices(config, hub)]


def tie_notices(config: RunConfig, hub: bool = True) -> list[str]:
    """A line for every file of pairs in which some lists have equal scores alone, and are left out."""
    lines = []
    for spec, records in pair_files(config, hub).items():
        ties = sum(
            len(set(record.scores)) == 1
            and all(len(set(part)) == 1 for part in zip(*record.segments or (), strict=True))
            for record in records
        )
        if ties:
            lines.append(f"{spec}: {ties:,} of {len(records):,} lists tie and are left out")
    return lines
