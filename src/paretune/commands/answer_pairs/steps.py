"""Pairs of single steps (Step-DPO): the first wrong step of a wrong answer, and a right one in its place."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...data.answer_forms import Record, Scored
from ...types import Prompt


@dataclass(frozen=True)
class Continued:
    """What a model wrote after a prefix.

    text: without the prefix. right: whether the whole is right. source: who wrote it; "" where that is not
    known, and it then counts as the wrong answer's.
    """

    text: str
    ends: bool
    right: bool
    source: str = ""


# A prompt and a prefix -> some answers that go on after the prefix.
Continue = Callable[[Prompt, str], Sequence[Continued]]
# A prompt and an answer so far -> whether it is still right.
StillRight = Callable[[Prompt, str], bool]


def split_steps(text: str, mark: str) -> list[str]:
    """The steps of an answer, each with the mark that ends it; joined they are the answer.

    White space alone, such as a blank line, is no step: it belongs to the step before it, or, at the
    beginning, to the first step.
    """
    steps: list[str] = []
    for part in re.split(f"(?<={re.escape(mark)})", text):
        if steps and not (part.strip() and steps[-1].strip()):
            steps[-1] += part
        elif part:
            steps.append(part)
    return steps


def step_records(
    prompt: Prompt, wrong: Scored, mark: str, goes_on: Continue, still_right: StillRight | None = None
) -> list[Record]:
    """The record of the first wrong step of an answer; none if no right step can be found in its place.

    Args:
        prompt: the prompt.
        wrong: an answer to it that is wrong.
        mark: ends a step.
        goes_on: draws answers after a prefix.
        still_right: judges an answer so far. Without it a step is wrong if no answer drawn after it is right.
    """
    steps = split_steps(wrong.text, mark)
    before = goes_on(prompt, "")
    for k, step in enumerate(steps):
        prefix, so_far = "".join(steps[:k]), "".join(steps[: k + 1])
        last = k == len(steps) - 1
        # After an answer's last step nothing is drawn: the answer is wrong.
        after = [] if last or still_right is not None else goes_on(prompt, so_far)
        fine = still_right(prompt, so_far) if still_right is not None else any(c.right for c in after)
        if fine and not last:
            before = after
            continue
        if still_right is not None and k:
            before = goes_on(prompt, prefix)
        return _pair(prefix, step, wrong.ends and last, before, mark, wrong.source)
    return []


def _pair(
    prefix: str, rejected: str, ends: bool, before: Sequence[Continued], mark: str, source: str
) -> list[Record]:
    for candidate in before:
        if not candidate.right or not candidate.text.strip():
            continue
        own = split_steps(candidate.text, mark)
        stops = candidate.ends and len(own) == 1
        # A blank line more makes no other step, but one that ends the answer differs from one that does not.
        if own[0] == rejected or (own[0].strip(), stops) == (rejected.strip(), ends):
            continue
        chosen = {"text": own[0], "source": candidate.source or source, "ends": stops}
        return [{"prefix": prefix,
                 "answers": [chosen, {"text": rejected, "source": source, "ends": ends}]}]  # fmt: skip
    return []
