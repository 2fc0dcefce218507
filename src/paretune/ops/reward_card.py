"""What a reward's scores on the base's samples say before anything is trained: the figures of a reward card.

Shapes: N samples of the base, of which a scorer may score some; groups [N], the number of each sample's
prompt. Scores are those that a scorer gives, not turned around for costs, NaN where it does not apply.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

SATURATED, AT_WORST, SAME_GROUPS = 0.5, 0.8, 0.5  # shares from which a line says that little can be learned
FEW_WITHIN = 0.1  # the share of the variance within prompts below which it is said
UNRELIABLE, SAME_ORDER, CONFLICT, DEAF = 0.8, 0.95, -0.3, 0.2  # correlations
ROUNDING = 1e-6  # a change of scores up to which it is that of another batch of the same samples
# Variants of a sample that a reward should score alike; a flip may rightly change sides and words.
SHOULD_AGREE = {
    "again": "scoring the same sample again", "jpeg": "JPEG at quality 75", "space": "a blank at the end",
}  # fmt: skip


@dataclass(frozen=True)
class Scored:
    """The scores of one scorer. values: [N]. low, high: the ends of its range, infinite where there is none.

    kind: reward, judge or untargeted. of: the reward that a judge judges, or "".
    """

    name: str
    values: np.ndarray
    low: float = -math.inf
    high: float = math.inf
    higher_is_better: bool = True
    kind: str = "reward"
    of: str = ""


Matrix = Sequence[Sequence[float | None]]


def ranks(values: np.ndarray) -> np.ndarray:
    """The ranks of finite values from 0, equal values at the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(count)
    return (ends - (count + 1) / 2)[place]


def spearman(first: np.ndarray, second: np.ndarray) -> float | None:
    """Spearman's correlation over what both score; None for fewer than three, or where one never differs."""
    both = np.isfinite(first) & np.isfinite(second)
    a, b = ranks(first[both]), ranks(second[both])
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def figures(scored: Scored, groups: np.ndarray) -> dict[str, Any]:
    """Mean, share at either end of the range, share of prompts without differences, variance within prompts.

    `within` is that variance's share of the variance within and between prompts. What cannot be told, such as
    differences of prompts with one sample each, is None.
    """
    known = np.isfinite(scored.values)
    values, groups = scored.values[known], groups[known]
    members = [values[groups == group] for group in np.unique(groups)]
    several = [m for m in members if len(m) > 1]
    slack = 1e-6 * max(1.0, float(np.abs(values).max())) if len(values) else 0.0
    ends = {"at_low": scored.low, "at_high": scored.high}
    within = float(np.mean([m.var() for m in several])) if several else None
    between = float(np.var([m.mean() for m in several])) if several else None
    whole = None if within is None or between is None else within + between
    return {
        "kind": scored.kind, "of": scored.of, "samples": len(values),
        "mean": float(values.mean()) if len(values) else None,
        "std": float(values.std()) if len(values) else None,
        **{key: float((np.abs(values - end) <= slack).mean()) if len(values) and math.isfinite(end) else None
           for key, end in ends.items()},
        "same_groups": float(np.mean([np.ptp(m) <= slack for m in several])) if several else None,
        "within": within / whole if whole and within is not None else None,
    }  # fmt: skip


def correlations(scorers: Sequence[Scored]) -> list[list[float | None]]:
    """Spearman's correlations of all pairs; those of costs are turned around, so that greater is better."""
    better = [s.values if s.higher_is_better else -s.values for s in scorers]
    return [[spearman(a, b) for b in better] for a in better]


def centred(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The values less the mean of their prompt; NaN for a prompt of which one sample is scored."""
    left = np.full(len(values), np.nan)
    for group in np.unique(groups):
        members = np.isfinite(values) & (groups == group)
        if members.sum() > 1:
            left[members] = values[members] - values[members].mean()
    return left


def card(scorers: Sequence[Scored], groups: np.ndarray) -> dict[str, Any]:
    """The card: figures of each scorer, their correlations over all samples and within prompts, and lines.

    A line tells whatever is bad. Experts learn from differences within prompts alone.
    """
    found = {s.name: figures(s, groups) for s in scorers}
    rows = correlations(scorers)
    within = correlations([replace(s, values=centred(s.values, groups)) for s in scorers])
    told = [line for s in scorers for line in _alone(s, found[s.name])] + _together(scorers, rows, within)
    return {
        "scorers": found, "names": [s.name for s in scorers], "correlation": rows,
        "correlation_within": within, "notes": told,
    }  # fmt: skip


def reliability(first: np.ndarray, variant: np.ndarray) -> dict[str, float | None]:
    """How the scores of changed samples follow those of the samples: Spearman's correlation, mean change."""
    change = np.abs(variant - first)
    return {"correlation": spearman(first, variant), "change": float(change.mean()) if len(change) else None}


def unreliable(name: str, found: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    """A line for each variant that a scorer should score alike and does not."""
    told: list[str] = []
    for variant, words in SHOULD_AGREE.items():
        at = found.get(variant, {})
        correlation, change = at.get("correlation"), at.get("change") or 0.0
        loose = correlation is not None and correlation < UNRELIABLE
        if change > ROUNDING and (variant == "again" or loose):
            by = "" if correlation is None else f" (correlation {correlation:.2f})"
            told.append(f"{name}: {words} changes its score by {change:.3g} on average{by}")
    return told


def _alone(scored: Scored, found: Mapping[str, Any]) -> list[str]:
    name, up = scored.name, scored.higher_is_better
    if not found["samples"]:
        return [f"{name}: it applies to none of the samples"]
    if found["std"] == 0:
        return [f"{name}: all samples of the base score {found['mean']:g}: nothing to learn"]
    told: list[str] = []
    best, worst = ("at_high", "at_low") if up else ("at_low", "at_high")
    ends = {"at_high": scored.high, "at_low": scored.low}
    if (share := found[best] or 0.0) >= SATURATED:
        told.append(f"{name}: {share:.0%} of base samples score {ends[best]:g}: little to learn")
    if (share := found[worst] or 0.0) >= AT_WORST:
        told.append(f"{name}: {share:.0%} of base samples score {ends[worst]:g}: little to learn from")
    if (share := found["same_groups"] or 0.0) >= SAME_GROUPS:
        told.append(f"{name}: in {share:.0%} of prompts all samples score the same: they teach nothing")
    elif (within := found["within"]) is not None and within < FEW_WITHIN:
        told.append(f"{name}: only {within:.0%} of its variance is within prompts, where an expert learns")
    return told


def _together(scorers: Sequence[Scored], rows: Matrix, within: Matrix) -> list[str]:
    told: list[str] = []
    for i, first in enumerate(scorers):
        for j, second in enumerate(scorers[:i]):
            over, inside, pair = rows[i][j], within[i][j], f"{second.name} and {first.name}"
            rewards = first.kind == second.kind == "reward"
            if first.kind == "judge" and first.of == second.name and over is not None and over < DEAF:
                told.append(f"{first.name}: it hardly follows {second.name}, which it judges ({over:+.2f})")
            elif rewards and inside is not None and inside <= CONFLICT:
                told.append(f"{pair} conflict within prompts ({inside:+.2f})")
            elif rewards and inside is not None and inside >= SAME_ORDER:
                told.append(f"{pair} order samples alike ({inside:+.2f}): one of them adds nothing")
    return told
