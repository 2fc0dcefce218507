"""GenEval (Ghosh et al. 2023, arXiv 2310.11513) on the picture world: are the prompt's facts
shown?

GenEval runs an object detector and checks a prompt's record (`include`, `exclude`, `position`)
against what it found. The pictures are this world's, so `detector.detect_batch` stands in for
Mask2Former.

The facts of a record, each true or false:
- for every entry of `include`: its class is shown (`class`); some of that class has the entry's
  colour and none has a colour that no entry of the class wants (`color`, where the entry names
  one); as many of that class are shown as the entries of the class ask for together, no more and
  no less (`count`, with which `exclude` agrees); every shape of the entry lies on the right side
  of every shape of the entry it is compared with, by two pixels or more (`position`, where the
  entry names one);
- for every entry of `exclude`: fewer than `count` shapes of its class and colour are shown;
- nothing else: no shape of a class that the record does not name, which GenEval does not ask,
  and without which a model that draws every class at once would collect the facts of each.
The partial score is the share of `include`'s facts that hold, times (1 - 1/2 · share of broken
facts of the other two kinds), after Flow-GRPO (arXiv 2505.05470), which also gives part of the
score for part of the facts. A strict score is 1 if all facts hold, else 0, as in GenEval. A
blank picture scores 0. A record with an empty `include` (only a sign) has "nothing else" alone
to ask, strict or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from paretune.types import ParetuneError, Prompt
from paretune.worlds.pictures.scenes import COLORS, SHAPES

from ..checks import Checked
from ..records import Known, check_geneval, geneval_record
from .detector import Detection, detect_batch, detect_shapes

__all__ = ["Detection", "GenEvalReward", "StrictGenEval", "detect_shapes", "facts", "score_record"]

MARGIN = 2.0
KNOWN = Known(SHAPES.__contains__, ", ".join(SHAPES), COLORS)


class GenEvalReward(Checked):
    """The share of a prompt's facts that its picture shows; if `strict`, whether it shows all."""

    name = "geneval"
    range = (0.0, 1.0)
    higher_is_better = True

    def __init__(self, strict: bool = False) -> None:
        self.strict = strict

    @staticmethod
    def check(prompts: Sequence[Prompt]) -> None:
        """Refuse a prompt without a whole record of objects; a sign alone says nothing of them."""
        check_geneval("geneval", prompts, KNOWN)

    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: [B, 3, 32, 32] in [0, 1]; prompts with GenEval records. Returns float32 [B].

        Raises ParetuneError for a prompt whose metadata has no `include`.
        """
        for prompt in prompts:
            if prompt.metadata.get("include") != []:
                self.check([prompt])
        found = detect_batch(samples)
        return torch.tensor(
            [score_record(p.metadata, f, self.strict) for p, f in zip(prompts, found, strict=True)]
        )


class StrictGenEval(GenEvalReward):
    """GenEval's own score, all facts or nothing: what its tables state, while policies train on parts."""

    name = "geneval_strict"

    def __init__(self) -> None:
        super().__init__(strict=True)


def score_record(
    record: Mapping[str, Any], found: Sequence[Detection], strict: bool = False
) -> float:
    """The score of one picture, in [0, 1], from its record and the shapes found in it."""
    wanted, unwanted = facts(record, found)
    if strict:
        return float(all(wanted) and not any(unwanted))
    share = sum(wanted) / len(wanted) if wanted else float(not any(unwanted))
    broken = sum(unwanted) / len(unwanted)
    return share * (1 - 0.5 * broken)


def facts(
    record: Mapping[str, Any], found: Sequence[Detection]
) -> tuple[list[bool], list[bool]]:
    """Which facts of `include` hold, and which things that the record forbids are shown."""
    record = geneval_record(record)
    include = record["include"]
    wanted = [held for entry in include for held in _entry_facts(entry, include, found)]
    unwanted = [
        len(_matching(entry, found)) >= entry["count"] for entry in record["exclude"]
    ]
    classes = {entry["class"] for entry in include}
    unwanted.append(any(d.shape not in classes for d in found))
    return wanted, unwanted


def _entry_facts(
    entry: Mapping[str, Any], include: Sequence[Mapping[str, Any]], found: Sequence[Detection]
) -> list[bool]:
    same = [e for e in include if e["class"] == entry["class"]]
    shown = [d for d in found if d.shape == entry["class"]]
    held = [bool(shown), len(shown) == sum(e["count"] for e in same)]
    if "color" in entry:
        allowed = {e.get("color") for e in same}
        right = any(d.color == entry["color"] for d in shown)
        held.append(right and (None in allowed or all(d.color in allowed for d in shown)))
    if entry.get("position") is not None:
        relation, index = entry["position"]
        held.append(_related(_actors(entry, found), relation, _actors(include[index], found)))
    return held


def _matching(entry: Mapping[str, Any], found: Sequence[Detection]) -> list[Detection]:
    """The shapes of an entry's class and, where it names one, colour."""
    return [
        d for d in found if d.shape == entry["class"] and entry.get("color", d.color) == d.color
    ]


def _actors(entry: Mapping[str, Any], found: Sequence[Detection]) -> list[Detection]:
    """The shapes that a relation speaks of, of a wrong colour if need be (another fact)."""
    return _matching(entry, found) or [d for d in found if d.shape == entry["class"]]


def _related(first: Sequence[Detection], relation: str, second: Sequence[Detection]) -> bool:
    if not first or not second:
        return False
    return all(_holds(a, relation, b) for a in first for b in second)


def _holds(a: Detection, relation: str, b: Detection) -> bool:
    if relation == "left of":
        return a.x < b.x - MARGIN
    if relation == "right of":
        return a.x > b.x + MARGIN
    if relation == "above":
        return a.y < b.y - MARGIN
    if relation == "below":
        return a.y > b.y + MARGIN
    raise ParetuneError(f"geneval: unknown relation {relation!r} in a prompt's record")
