"""What a user reads before a run: lines about the model and about prompts that are cut."""

from __future__ import annotations

from ..config import RunConfig
from ..foreign import gguf
from .long_prompts import cut_notices, pair_files

SCORED = 64  # samples that a reward scores in one call


def notices(config: RunConfig, hub: bool = True) -> list[str]:
    """All lines. hub: whether datasets of the hub are loaded, which may download them."""
    lines = [*gguf.notices(config.model.path), *cut_notices(config, hub), *tie_notices(config, hub)]
    return [*lines, *_overlap(config)]


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


def _overlap(config: RunConfig) -> list[str]:
    """A line where `executor.overlap` is asked for and an epoch's samples are drawn or scored in one part."""
    train = config.train
    samples = train.prompts_per_epoch * train.group_size
    if not config.executor.overlap or (samples > SCORED and samples > train.micro_batch):
        return []
    why = f"scored in one part, as up to {SCORED} are"
    if samples > SCORED:
        why = f"drawn in one part; set train.micro_batch to {SCORED} or less"
    return [f"executor.overlap changes nothing here: the {samples} samples of an epoch are {why}"]
