"""The page's question "Which do you like better?": pairs of samples, and the preference that choices show.

Nothing is kept of a visitor: the choices so far are a text that the page carries, as every other setting. Its
pairs follow from a number that it begins with: the same prompt and noise, with two of the rewards in full.
"""

from __future__ import annotations

import json
import math
import random
import secrets
from dataclasses import dataclass, replace
from typing import Any

from ..sampling import Request
from ..sampling.choices import FEWEST, fit_scores
from ..types import ParetuneError
from . import asked, markup
from .answers import Answers, Kept

MOST, LONGEST = 12, 40_000  # choices; characters of the text that the page carries
Fitted = tuple[tuple[float, ...] | None, str]  # the preference, if there is one, and the text about it
QUESTIONS = 3 * MOST  # that are asked at most, with those that were left out


@dataclass(frozen=True)
class Choices:
    """start: of the pairs. asked: pairs so far. taken: the scores of the chosen and of the other sample, one
    for each reward, None where there is none."""

    start: int
    asked: int = 0
    taken: tuple[tuple[tuple[float | None, ...], tuple[float | None, ...]], ...] = ()

    def to_text(self) -> str:
        """What the page carries."""
        return json.dumps({"start": self.start, "asked": self.asked, "taken": self.taken})


@dataclass(frozen=True)
class Question:
    """samples, told: HTML. state: what the page carries. preference: the fitted weights, or None."""

    samples: str
    told: str
    state: str
    preference: tuple[float, ...] | None = None


class Chooser:
    """Asks for choices and fits a preference to them."""

    def __init__(self, answers: Answers) -> None:
        self.answers, self.rewards = answers, answers.source.rewards
        self.prompts = answers.examples()

    def begin(self, method: Any, start: int | None = None) -> Question:
        """The first question of a new series."""
        return self._question(Choices(secrets.randbelow(2**31) if start is None else start), method, None)

    def choose(self, state: Any, side: int | None, method: Any) -> Question:
        """Take a choice, and ask the next question.

        Args:
            state: the text that the page carries, which may be anything.
            side: 0 or 1, or None if neither is better.
            method: of the page, as a visitor sent it.
        """
        choices = self._read(state)
        if len(choices.taken) >= MOST or choices.asked >= QUESTIONS:
            raise ParetuneError("that was the last choice; start again for others")
        if side is not None:
            scores = [self._row(kept) for kept in self._pair(choices, method)]
            choices = replace(choices, taken=(*choices.taken, (scores[side], scores[1 - side])))
        choices = replace(choices, asked=choices.asked + 1)
        return self._question(choices, method, self._fit(choices))

    def _question(self, choices: Choices, method: Any, fitted: Fitted | None) -> Question:
        count = len(choices.taken)
        told = fitted[1] if fitted else f"<p class='pt-note'>{count} of at least {FEWEST} choices.</p>"
        preference = fitted[0] if fitted else None
        if count >= MOST or choices.asked >= QUESTIONS:
            return Question("", told, choices.to_text(), preference)
        first, second = self._pair(choices, method)
        text = self._prompt(choices)
        view, suffix = self.answers.view, self.answers.medium.suffix
        parts = [view.draw(kept.file, title, text, f"{title}{suffix}")
                 for title, kept in (("A", first), ("B", second))]  # fmt: skip
        samples = markup.side_by_side(parts, self.answers.medium.name)
        asks = f"<p class='pt-asks'>{markup.shown(text)}</p>"
        return Question(asks + samples, told, choices.to_text(), preference)

    def _fit(self, choices: Choices) -> Fitted | None:
        """The fitted preference and the text about it; None before there are enough choices."""
        if len(choices.taken) < FEWEST:
            return None
        sides = [[self._scores(pair[side]) for pair in choices.taken] for side in (0, 1)]
        try:
            fit = fit_scores(sides[0], sides[1], self.answers.sampler)
        except ParetuneError as error:  # they differ in no reward: the next ones may
            return None, f"<p class='pt-note'>{markup.shown(str(error))}</p>"
        rows = list(zip(self.rewards, fit.preference, fit.error, strict=True))
        return fit.preference, markup.fitted(rows, len(choices.taken), fit.explained)

    def _pair(self, choices: Choices, method: Any) -> tuple[Kept, Kept]:
        """The two samples of the current question."""
        name = asked.text(method, "method", 40)
        if name not in self.answers.methods:
            raise ParetuneError(f"this run has no method {name}; it has {', '.join(self.answers.methods)}")
        chance = random.Random(choices.start * 1000 + choices.asked)
        first, second = chance.sample(range(len(self.rewards)), 2)
        seed = chance.randrange(2**31)
        return tuple(  # type: ignore[return-value]
            self.answers.kept(Request(self._prompt(choices), name, self._corner(place), seed))
            for place in (first, second)
        )

    def _prompt(self, choices: Choices) -> str:
        return self.prompts[choices.asked % len(self.prompts)].strip()

    def _corner(self, place: int) -> tuple[float, ...]:
        return tuple(float(i == place) for i in range(len(self.rewards)))

    def _row(self, kept: Kept) -> tuple[float | None, ...]:
        return tuple(kept.scores.get(name) for name in self.rewards)

    def _scores(self, row: tuple[float | None, ...]) -> dict[str, float]:
        return {name: value for name, value in zip(self.rewards, row, strict=True) if value is not None}

    def _read(self, state: Any) -> Choices:
        """The choices that the page carries. Raises ParetuneError for anything else."""
        text = asked.text(state, "list of choices", LONGEST)
        wrong = ParetuneError("these choices cannot be read: start again")
        try:
            found = json.loads(text)
            start, count, taken = found["start"], found["asked"], found["taken"]
        except (ValueError, RecursionError, KeyError, TypeError):
            raise wrong from None
        if not (_whole(start, 2**31) and _whole(count, QUESTIONS + 1) and isinstance(taken, list)):
            raise wrong
        if len(taken) > min(MOST, count) or not all(self._is_pair(pair) for pair in taken):
            raise wrong
        return Choices(start, count, tuple((tuple(a), tuple(b)) for a, b in taken))

    def _is_pair(self, pair: Any) -> bool:
        return isinstance(pair, list) and len(pair) == 2 and all(
            isinstance(row, list) and len(row) == len(self.rewards) and all(map(_score, row)) for row in pair
        )


def _whole(value: Any, below: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < below


def _score(value: Any) -> bool:
    """Whether a value may be a score, or None for a reward without one."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is None or (number and abs(value) < 1e12 and math.isfinite(value))
