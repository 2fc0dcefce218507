"""What a user reads before a run: lines about the model and about prompts that are cut."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..config import RunConfig
from ..foreign import gguf
from .long_prompts import cut_notices, pair_files

SCORED = 64  # samples that a reward scores in one call
UNEVEN = 5.0  # times as wide a range as another reward's, from which the wide one decides nearly alone


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


def uneven_notices(config: RunConfig, ranges: Mapping[str, tuple[float, float]]) -> list[str]:
    """A line where rewards of very different ranges are summed before their groups are normalised.

    ranges: the least and the greatest value of each reward. One without a bound cannot be compared.
    """
    leans = "mapreduce" in config.methods and any(map(config.lean, config.rewards))
    sums = [name for name, does in (("morl_dr", "morl_dr" in config.methods), ("map.lean", leans)) if does]
    if config.objective.joint != "sum_then_normalise" or not sums:
        return []
    spans = {
        name: (ranges[name][1] - ranges[name][0]) * reward.weight
        for name, reward in config.rewards.items() if reward.normalise == "none" and reward.weight > 0
    }  # fmt: skip
    spans = {name: span for name, span in spans.items() if math.isfinite(span)}
    if not spans or max(spans.values()) <= UNEVEN * min(spans.values()):
        return []
    wide, narrow = max(spans, key=spans.__getitem__), min(spans, key=spans.__getitem__)
    return [
        f"{' and '.join(sums)} {'sum' if len(sums) > 1 else 'sums'} the rewards, and {wide} spans "
        f"{spans[wide]:g} where {narrow} spans {spans[narrow]:g}, so that {wide} decides nearly alone: "
        "objective.joint: normalise_then_sum gives each the same say"
    ]


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
