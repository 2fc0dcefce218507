"""GenEval's rules (Ghosh et al. 2023, arXiv 2310.11513), from what a detector found to a verdict.

As in the official evaluation/evaluate_images.py (github djghosh13/geneval). Nothing here reads a picture, so
that stored detections are judged as they were found.
- An object counts that the detector is surer of than .3, or than .9 in a record tagged "counting"; of each
  class the 16 surest; then, with `overlap` below 1, none that overlaps a surer one of its class that much.
- `verdict`: every entry of `include` has at least `count` objects of its class, of which the `count` surest
  all have its colour and all stand in its position to all of the entry it names; and of no entry of `exclude`
  there are `count` or more. An entry that fails is no target for a position.
- `partial_score`: the mean of the parts that Flow-GRPO (arXiv 2505.05470) rewards. An entry that asks for k
  and gets n gives max(0, 1 - |n - k|/k). One that also asks for a colour or a position gives 0 for
  that where n is not k, else max(0, 1 - |m - k|/k) for the colour (m of the right one) and 1 or 0 for
  the position. Flow-GRPO's server lets the count's part fall below 0 and adds a part of 1 after every
  position, right or wrong; we do neither. An entry of `exclude` whose class nothing includes, which
  GenEval's prompts do not have, costs up to half.
Other objects than those asked for cost nothing, unlike in `pictures.geneval`, whose world shows little else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..records import geneval_record

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
THRESHOLD, COUNTING_THRESHOLD = 0.3, 0.9
MOST_OBJECTS = 16  # of a class
SHRUNK = 0.1  # of both boxes' sides, by which the offset of two objects is shortened
NO_LIMIT = 1.0
# GenEval's names of COCO's classes, by the other names that they go by.
NAMES = {
    "mouse": "computer mouse", "remote": "tv remote", "keyboard": "computer keyboard",
    "motorbike": "motorcycle", "aeroplane": "airplane", "sofa": "couch", "tvmonitor": "tv",
    "pottedplant": "potted plant", "diningtable": "dining table", "hair dryer": "hair drier",
}  # fmt: skip


Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Found:
    """One object: its class (GenEval's name), confidence, box (left, top, right, bottom in pixels),
    colour where somebody asks for it, and mask, bool [H, W]."""

    name: str
    score: float
    box: Box
    color: str | None = None
    mask: torch.Tensor | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Verdict:
    """Whether a picture shows its record, and what it lacks, one line each."""

    correct: bool
    reasons: tuple[str, ...] = ()


def class_name(name: str) -> str:
    """GenEval's name of a class, by any of its names."""
    return NAMES.get(name, name)


# ---------------------------------------------------------------- what counts as found


def threshold_of(
    record: Mapping[str, Any], threshold: float = THRESHOLD, counting: float = COUNTING_THRESHOLD
) -> float:
    """How sure of an object the detector must be, by the record's tag."""
    return counting if record.get("tag") == "counting" else threshold


def kept(found: Sequence[Found], threshold: float, overlap: float = NO_LIMIT) -> list[Found]:
    """The objects that count, the surest first; see the head of this file."""
    surest = sorted((o for o in found if o.score > threshold), key=lambda o: -o.score)
    limited = [o for i, o in enumerate(surest) if _before(o, surest[:i]) < MOST_OBJECTS]
    if overlap == NO_LIMIT:
        return limited
    clear: list[Found] = []
    for item in limited:
        if all(p.name != item.name or overlap_of(p.box, item.box) < overlap for p in clear):
            clear.append(item)
    return clear


def overlap_of(a: Box, b: Box) -> float:
    """The intersection of two boxes over their union, each counted a pixel wider and higher."""
    inner = (max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    shared = _area(inner)
    union = _area(a) + _area(b) - shared
    return shared / union if union else 0.0


def surest_color(chances: Sequence[float]) -> str:
    """The colour, of COLORS, with the greatest of ten chances; the first where several are."""
    return COLORS[max(range(len(COLORS)), key=lambda i: chances[i])]


def _before(item: Found, surer: Sequence[Found]) -> int:
    return sum(other.name == item.name for other in surer)


def _area(box: Box) -> float:
    return max(box[2] - box[0] + 1, 0) * max(box[3] - box[1] + 1, 0)


# ---------------------------------------------------------------- objects to a score


def photo_score(record: Mapping[str, Any], found: Sequence[Found], strict: bool = False) -> float:
    """The score of one picture, in [0, 1], from its record and its objects, the surest first."""
    return float(is_correct(record, found)) if strict else partial_score(record, found)


def is_correct(record: Mapping[str, Any], found: Sequence[Found]) -> bool:
    """GenEval's verdict."""
    return verdict(record, found).correct


def verdict(record: Mapping[str, Any], found: Sequence[Found]) -> Verdict:
    """GenEval's verdict on the objects that count, the surest first, and what is wrong."""
    record = geneval_record(record)
    include, reasons = record["include"], []
    groups = [_matched(entry, _shown(entry, found)[: entry["count"]]) for entry in include]
    standing: list[Sequence[Found]] = []
    for entry, group in zip(include, groups, strict=True):
        wrong = _wrong(entry, group, found, [*standing, *groups[len(standing) :]])
        standing.append([] if wrong else group)
        reasons += [wrong] if wrong else []
    for entry in record["exclude"]:
        if _broken(entry, found):
            reasons.append(
                f"fewer than {entry['count']} {entry['class']} expected, {len(_shown(entry, found))} found"
            )
    return Verdict(not reasons, tuple(reasons))


def _wrong(
    entry: Mapping[str, Any],
    group: Sequence[Found],
    found: Sequence[Found],
    groups: Sequence[Sequence[Found]],
) -> str | None:
    """What an entry of `include` lacks. group: its objects; groups: those of all entries, empty if failed."""
    shown = _shown(entry, found)[: entry["count"]]
    what = f"{entry['count']} {entry['class']}"
    if len(shown) < entry["count"]:
        return f"{what} expected, {len(shown)} found"
    if not group:
        right = sum(o.color == entry["color"] for o in shown)
        return f"{what} in {entry['color']} expected, {right} found"
    if not _placed(entry, group, groups):
        relation, index = entry["position"]
        return f"{what} {relation} entry {index} expected, which does not hold"
    return None


def partial_score(record: Mapping[str, Any], found: Sequence[Found]) -> float:
    """Flow-GRPO's share of what is asked; see the head of this file."""
    record = geneval_record(record)
    include = record["include"]
    groups = [_matched(entry, _shown(entry, found)) for entry in include]
    parts = []
    for entry, group in zip(include, groups, strict=True):
        shown, count = _shown(entry, found), entry["count"]
        parts.append(_closeness(len(shown), count))
        if len(shown) != count:
            parts.extend([0.0] if "color" in entry or entry.get("position") else [])
            continue
        if "color" in entry:
            parts.append(_closeness(sum(o.color == entry["color"] for o in shown), count))
        if entry.get("position") and group:
            parts.append(float(_placed(entry, group, groups)))
    counted = {class_name(entry["class"]) for entry in include}
    others = [e for e in record["exclude"] if class_name(e["class"]) not in counted]
    broken = sum(_broken(entry, found) for entry in others) / max(1, len(others))
    return sum(parts) / len(parts) * (1 - 0.5 * broken)


def relations(a: Found, b: Found) -> set[str]:
    """How `a` stands to `b`: GenEval's rule on the centres of their boxes.

    On each axis the offset shrinks by a tenth of both boxes' sides; what is left holds where it is
    more than half of the whole offset's length.
    """
    offset, rest = [], []
    for low, high in ((0, 2), (1, 3)):
        apart = (a.box[low] + a.box[high] - b.box[low] - b.box[high]) / 2
        sides = abs(a.box[high] - a.box[low]) + abs(b.box[high] - b.box[low])
        left = max(abs(apart) - SHRUNK * sides, 0.0)
        offset.append(apart)
        rest.append(left if apart > 0 else -left)
    if max(map(abs, rest)) < 1e-3:
        return set()
    length = (offset[0] ** 2 + offset[1] ** 2) ** 0.5
    dx, dy = rest[0] / length, rest[1] / length
    told = {"left of": dx < -0.5, "right of": dx > 0.5, "above": dy < -0.5, "below": dy > 0.5}
    return {name for name, holds in told.items() if holds}


def _shown(entry: Mapping[str, Any], found: Sequence[Found]) -> list[Found]:
    """The objects of an entry's class, the surest first."""
    return [o for o in found if o.name == class_name(entry["class"])]


def _matched(entry: Mapping[str, Any], shown: list[Found]) -> list[Found]:
    """The objects, if they have the entry's number and all its colour; else none."""
    colored = "color" not in entry or all(o.color == entry["color"] for o in shown)
    return shown if len(shown) == entry["count"] and colored else []


def _placed(entry: Mapping[str, Any], group: Sequence[Found], groups: Sequence[Sequence[Found]]) -> bool:
    """Whether all of a group stand to all of the group that the entry names as it says."""
    if not entry.get("position"):
        return True
    relation, index = entry["position"]
    return bool(groups[index]) and all(relation in relations(a, b) for a in group for b in groups[index])


def _broken(entry: Mapping[str, Any], found: Sequence[Found]) -> bool:
    return len(_shown(entry, found)) >= entry["count"]


def _closeness(shown: int, asked: int) -> float:
    return max(0.0, 1 - abs(shown - asked) / asked)
