"""How scored answers to a prompt become records of preferences: one pure function a form.

    extremes   the best and the worst
    ladder     the best against each of the others, by falling gap: `stage` 1 is the easiest (Curry-DPO)
    list       all, best first
    triple     the best as reference, the second and the worst (triple TPO)
    correct    the most frequent right and the most frequent wrong answer (cDPO)
    safety     the best safe answer of anybody, and the worst unsafe one of the model itself (Egida)
    given      a file's first answer, and the worst that the model drew, or the file's last
    rewrite    extremes of rewritten prompts, which a recipe of pictures scores (Sem-DPO)

`answer_lists` reads the records. Answers of equal value have no order, so a list in which all tie gives none.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

Record = dict[str, Any]


@dataclass(frozen=True)
class Scored:
    """An answer and how good it is.

    value: greater is better. scores: raw, by reward. own: whether the model drew it for the prompt as it is.
    ends: false where it was cut off. repeats: how often it was drawn. warned: whether the model drew it after
    the words of --safety-prompt.
    """

    text: str
    value: float
    scores: Mapping[str, float] = field(default_factory=dict[str, float])
    source: str = "base"
    own: bool = True
    ends: bool = True
    repeats: int = 1
    warned: bool = False


@dataclass(frozen=True)
class Judging:
    """What a form needs to know beside the answers.

    threshold: the least value of a right or a safe answer. squashed: whether values are shares, whose
    log-odds make the margin. cost: whether values are those of a cost, turned. nearest: how far a share is
    kept from 0 and 1, where its log-odds are infinite.
    """

    threshold: float = 0.5
    squashed: bool = False
    cost: bool = False
    nearest: float = 1e-6

    @classmethod
    def of_wins(cls, comparisons: int) -> Judging:
        """For values that are shares of so many comparisons won; all of them won counts as all but a half."""
        return cls(squashed=True, nearest=0.5 / comparisons)

    def margin(self, better: Scored, worse: Scored) -> float | None:
        """The gap of two answers, in log-odds where values are shares.

        None where a penalty has made one no share: a loss that needs log-odds then refuses the reward.
        """
        if not self.squashed:
            return better.value - worse.value
        shares = [-value if self.cost else value for value in (better.value, worse.value)]
        if min(shares) < 0 or max(shares) > 1:
            return None
        above, below = (math.log(share / (1 - share)) for share in map(self._inside, shares))
        return below - above if self.cost else above - below

    def _inside(self, share: float) -> float:
        return min(max(share, self.nearest), 1 - self.nearest)


Form = Callable[[Sequence[Scored], Judging], list[Record]]


def distinct(answers: Sequence[Scored]) -> list[Scored]:
    """The answers from the best to the worst; of equal texts the first, which counts all of them."""
    return sorted(_once(answers), key=lambda answer: -answer.value)


def _once(answers: Sequence[Scored]) -> list[Scored]:
    """The answers in their order; of equal texts the first, which counts all of them."""
    counts = Counter(answer.text for answer in answers)
    first: dict[str, Scored] = {}
    for answer in answers:
        first.setdefault(answer.text, replace(answer, repeats=counts[answer.text]))
    return list(first.values())


def entry(answer: Scored) -> Record:
    """An answer as a record holds it."""
    return {
        "text": answer.text, "score": answer.value, "scores": dict(answer.scores), "source": answer.source,
        "ends": answer.ends,
    }  # fmt: skip


def pair(better: Scored, worse: Scored, judging: Judging, **more: Any) -> Record:
    """The record of two answers, which TRL's own losses read too."""
    return {
        "chosen": better.text, "rejected": worse.text, "answers": [entry(better), entry(worse)],
        "margin": judging.margin(better, worse), **more,
    }  # fmt: skip


def extremes(answers: Sequence[Scored], judging: Judging) -> list[Record]:
    """See the module."""
    order = distinct(answers)
    if not order or order[0].value == order[-1].value:
        return []
    return [pair(order[0], order[-1], judging)]


def ladder(answers: Sequence[Scored], judging: Judging) -> list[Record]:
    """See the module. Scores 4, 3, 2.5, 1 give gaps of 3, 1.5 and 1 in the stages 1, 2 and 3."""
    order = distinct(answers)
    worse = [answer for answer in reversed(order) if answer.value < order[0].value]
    return [pair(order[0], answer, judging, stage=stage) for stage, answer in enumerate(worse, start=1)]


def whole_list(answers: Sequence[Scored], judging: Judging) -> list[Record]:
    """See the module."""
    order = distinct(answers)
    if not order or order[0].value == order[-1].value:
        return []
    return [{"answers": [entry(answer) for answer in order], "margin": judging.margin(order[0], order[-1])}]


def triple(answers: Sequence[Scored], judging: Judging) -> list[Record]:
    """See the module."""
    order = distinct(answers)
    if len(order) < 3 or order[1].value == order[-1].value:
        return []
    best, second, worst = order[0], order[1], order[-1]
    return [{
        "reference": best.text, "chosen": second.text, "rejected": worst.text,
        "answers": [entry(best), entry(second), entry(worst)], "margin": judging.margin(second, worst),
    }]  # fmt: skip


def correct(answers: Sequence[Scored], judging: Judging) -> list[Record]:
    """See the module. `right` is the share of right answers among all that were drawn."""
    order = distinct(answers)
    right = [answer for answer in order if answer.value >= judging.threshold]
    wrong = [answer for answer in order if answer.value < judging.threshold]
    if not right or not wrong:
        return []
    better, worse = (max(side, key=lambda answer: answer.repeats) for side in (right, wrong))
    share = sum(answer.repeats for answer in right) / len(answers)
    return [pair(better, worse, judging, right=share)]


def safety(answers: Sequence[Scored], judging: Judging) -> list[Record]:
    """See the module."""
    order = distinct(answers)
    safe = [answer for answer in order if answer.value >= judging.threshold]
    unsafe = [answer for answer in order if answer.value < judging.threshold and answer.own]
    return [pair(safe[0], unsafe[-1], judging)] if safe and unsafe else []


def given(answers: Sequence[Scored], judging: Judging) -> list[Record]:
    """See the module. A file's answers, which are in its order, keep it, whatever the reward says."""
    # Each side by itself: what the model drew, too, is still the file's answer.
    theirs = _once([answer for answer in answers if not answer.own and not answer.warned])
    first = {answer.text for answer in theirs[:1]}
    own = distinct([answer for answer in answers if answer.own and answer.text not in first])
    rest = own or theirs[1:]
    return [pair(theirs[0], rest[-1], judging)] if theirs and rest and theirs[0].text != rest[-1].text else []


# Name -> how it makes records of one prompt's answers. "steps" is not among them: it draws more answers.
FORMS: dict[str, Form] = {
    "extremes": extremes, "ladder": ladder, "list": whole_list, "triple": triple, "correct": correct,
    "safety": safety, "given": given, "rewrite": extremes,
}  # fmt: skip
STEPS = "steps"
BY_THRESHOLD = ("correct", "safety", STEPS)
