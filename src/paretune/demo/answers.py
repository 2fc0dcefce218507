"""What the page answers to one setting of its controls.

Nothing of a visitor is kept: the whole setting comes in with every question, and what is remembered is
remembered by the whole setting.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..data.prompts import load_prompts
from ..files import read_rows
from ..rewards.base import applies_to
from ..sampling import Request, Sampler
from ..sampling.request import normalised, read_method, read_prompt, read_seed
from ..types import ParetuneError, Prompt
from . import asked, markup
from .front import Front, near, read_front
from .plots import front_plots
from .views import VIEWS

REMEMBERED = 256
LABELS = {
    "mapreduce": "MapReduce, last round's experts weighted",
    "mix": "mix of one round's experts",
    "rate": "reward tokens",
}


@dataclass(frozen=True)
class Answer:
    """The parts of the page that change, as HTML."""

    samples: str
    bars: str
    front: str
    note: str = ""


@dataclass(frozen=True)
class Kept:
    """One sample: its file, its scores, and why rewards say nothing of it."""

    file: bytes
    scores: Mapping[str, float]
    left_out: Mapping[str, str]


class Answers:
    """One run's sampler and front, for all visitors."""

    def __init__(self, sampler: Sampler) -> None:
        source = sampler.source
        assert source.run_folder is not None
        assert source.config is not None
        self.sampler, self.source = sampler, source
        self.front: Front = read_front(source.run_folder, source.config.weights())
        self.methods = [m for m in source.methods if m != "base"]
        self.medium, self.view = sampler.medium, VIEWS[sampler.medium.name]
        self._kept = lru_cache(REMEMBERED)(self._draw)
        self.ranges = {r.name: self._range(r.name, r.range) for r in sampler.rewards()}

    def answer(
        self, prompt: Any, weights: Sequence[Any], method: Any, tokens: Any, seed: Any
    ) -> Answer:
        """Draw and score the base and the aligned model. ParetuneError, one line, for a wrong setting.

        The arguments are what a visitor sent, of any type.
        """
        names = self.source.rewards
        preference = normalised(asked.numbers(weights, names), names)
        if read_method(asked.text(method, "method", 40)) not in self.methods:
            raise ParetuneError(f"this run has no method {method}; it has {', '.join(self.methods)}")
        text = read_prompt(asked.text(prompt, "prompt"), self.medium.longest, self.medium.lines)
        number = read_seed(asked.seed(seed))
        typed = asked.text(tokens, "tokens", asked.LONGEST_TOKENS).strip()
        aligned = Request(text, method, self._asked(method, preference), number, typed)
        base = Request(text, "base", None, number)
        self.source.mixed(aligned)
        drawn = {"base": self._kept(base), "aligned": self._kept(aligned)}
        place = None if typed else self.front.place(method, preference)
        return Answer(
            markup.side_by_side([
                self.view.draw(own.file, title, text, f"{title}-{number}{self.medium.suffix}")
                for title, own in drawn.items()
            ], self.medium.name),
            markup.bars(
                self.source.rewards, self.ranges, {title: own.scores for title, own in drawn.items()},
                drawn["base"].left_out, self.view.noun,
            ),
            front_plots(self.front, place, method, bool(typed)),
            "; ".join(self.sampler.cuts([text])),
        )  # fmt: skip

    def point(self, place: Any) -> tuple[str, tuple[float, ...]]:
        """The method and the preference of a point of the front. place: its number, as a visitor sent it."""
        number = asked.whole(place)
        if not 0 <= number < len(self.front.points):
            raise ParetuneError("there is no such point")
        point = self.front.points[number]
        if point.drawn_by not in self.methods:
            raise ParetuneError(f"the page cannot draw {point.name}: this run has {', '.join(self.methods)}")
        return str(point.drawn_by), point.preference

    def examples(self, most: int = 6) -> list[str]:
        """Held-out prompts, the rewards in turn, but first those that most rewards can score.

        A recipe may name any file of the user's as its prompts: of a run that is not trusted only those are
        shown that its own rows hold.
        """
        assert self.source.config is not None
        assert self.source.run_folder is not None
        rows = [] if self.source.trusted else read_rows(self.source.run_folder / "evaluation.jsonl")
        told = {row.get("prompt") for row in rows}
        sets = []
        for own in self.source.config.rewards.values():
            try:
                texts = [p.text for p in load_prompts(own.eval_prompts)[:most]]
                sets.append([text for text in texts if self.source.trusted or text in told])
            except ParetuneError:  # the file may have gone since
                continue
        turns = list(dict.fromkeys(own[i] for i in range(most) for own in sets if i < len(own)))[:most]
        return sorted(turns, key=lambda text: -self._said_of(text)) or [self.view.example]

    def _asked(self, method: str, preference: tuple[float, ...]) -> tuple[float, ...] | None:
        """None, the merged model itself, for MapReduce at the recipe's weights: that is what was measured.

        Its exact average is another model where the recipe reduces otherwise, or compresses.
        """
        merged = method == "mapreduce" and near(preference, self.source.default_preference)
        return None if merged else preference

    def _said_of(self, text: str) -> int:
        prompt = self.source.known.get(text, Prompt(text))
        return sum(applies_to(reward, prompt) for reward in self.sampler.rewards())

    def _draw(self, request: Request) -> Kept:
        """What `paretune sample` would write first for a request."""
        done = self.sampler.draw_scored(request)
        settings = {**self.sampler.settings(request), "index": 0}
        return Kept(self.medium.content(done.samples, 0, settings), done.scores[0], done.left_out)

    def _range(self, name: str, bounds: tuple[float, float]) -> tuple[float, float]:
        """The bars' ends: the reward's own, or where it has none those of the measured models."""
        index = self.source.rewards.index(name)
        values = [p.values[index] for p in self.front.points]
        low, high = bounds
        return (
            low if math.isfinite(low) else min(values, default=0.0),
            high if math.isfinite(high) else max(values, default=1.0),
        )
