"""The page's answer to one setting of its controls.

Nothing is stored about a visitor but the last input pictures, while the page is served (see `inputs`). Every
question carries the whole setting, and the cache is keyed by the whole setting.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from ..data.prompts import load_prompts
from ..files import read_rows
from ..inputs.pictures import picture_hash, picture_of
from ..rewards.base import applies_to
from ..sampling import Request, Sampler
from ..sampling.request import normalised, read_method, read_prompt, read_seed
from ..types import ParetuneError, Prompt
from . import asked, markup
from .front import Front, near, read_front
from .inputs import Inputs, small_png
from .plots import front_plots
from .views import VIEWS, picture

REMEMBERED = 256
LABELS = {
    "mapreduce": "MapReduce, last round's experts weighted",
    "mix": "mix of one round's experts",
    "rate": "reward tokens",
    "conditioned": "one policy that is given the weights",
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
    """One sample: its file and its scores. left_out: reward -> the reason why it gives no score."""

    file: bytes
    scores: Mapping[str, float]
    left_out: Mapping[str, str]


class Answers:
    """The sampler and the front of one run. All visitors share them."""

    def __init__(self, sampler: Sampler) -> None:
        source = sampler.source
        assert source.run_folder is not None
        assert source.config is not None
        self.sampler, self.source = sampler, source
        self.front: Front = read_front(source.run_folder, source.config.weights())
        self.methods = [m for m in source.methods if m != "base"]
        self.medium, self.view = sampler.medium, VIEWS[sampler.medium.name]
        self._kept = lru_cache(REMEMBERED)(self._draw)
        self.inputs = Inputs()
        self.ranges = {r.name: self._range(r.name, r.range) for r in sampler.rewards()}

    def answer(
        self, prompt: Any, weights: Sequence[Any], method: Any, tokens: Any, seed: Any, image: Any = ""
    ) -> Answer:
        """Draw and score one sample of the base and one of the aligned model.

        The arguments are what a visitor sent and may have any type; image is a data URI, "" for the picture
        of the run's own prompt. Raises ParetuneError for a wrong setting.
        """
        names = self.source.rewards
        preference = normalised(asked.numbers(weights, names), names)
        if read_method(asked.text(method, "method", 40)) not in self.methods:
            raise ParetuneError(f"this run has no method {method}; it has {', '.join(self.methods)}")
        text = read_prompt(asked.text(prompt, "prompt"), self.medium.longest, self.medium.lines)
        number = read_seed(asked.seed(seed))
        typed = asked.text(tokens, "tokens", asked.LONGEST_TOKENS).strip()
        chosen = self.inputs.keep(image)
        aligned = Request(text, method, self._asked(method, preference), number, typed, chosen)
        base = Request(text, "base", None, number, image=chosen)
        self.source.mixed(aligned)
        seen = self._input(base)
        drawn = {"base": self._kept(base), "aligned": self._kept(aligned)}
        place = None if typed else self.front.place(method, preference)
        return Answer(
            markup.side_by_side([
                self.view.draw(sample.file, title, text, f"{title}-{number}{self.medium.suffix}")
                for title, sample in drawn.items()
            ] + [picture(small_png(seen), "input", text, f"input-{number}.png") for _ in range(seen != "")],
            self.medium.name),
            markup.bars(
                self.source.rewards, self.ranges, {title: sample.scores for title, sample in drawn.items()},
                drawn["base"].left_out, self.view.noun,
            ),
            front_plots(self.front, place, method, bool(typed)),
            "; ".join(self.sampler.cuts([text])),
        )  # fmt: skip

    @property
    def can_choose(self) -> bool:
        """Whether the page can ask which of two samples is better: of two rewards, without input pictures."""
        return len(self.source.rewards) > 1 and not self.source.takes_picture

    def kept(self, request: Request) -> Kept:
        """One sample with its scores, drawn now or before. The request is checked; raises ParetuneError."""
        self.source.mixed(request)
        self._input(request)
        return self._kept(replace(request, preference=self._asked(request.method, request.preference or ())))

    def _input(self, request: Request) -> str:
        """The path of the input picture that a request is drawn from, "" for none.

        A recipe may name any file of the user as a picture. So if a run is not trusted, its own pictures are
        used only where the run has measured them.
        """
        self.source.check_picture(request, "choose one")
        image = picture_of(self.sampler.prompt(request).text) or ""
        if image and not request.image and not self.source.trusted:
            assert self.source.run_folder is not None
            rows = read_rows(self.source.run_folder / "evaluation.jsonl")
            if picture_hash(image) not in {row.get("image") for row in rows}:
                raise ParetuneError("the picture of this prompt is not the one that was measured: choose one")
        return image

    def point(self, place: Any) -> tuple[str, tuple[float, ...]]:
        """The method and the preference of a point of the front. place: its number as a visitor sent it."""
        number = asked.whole(place)
        if not 0 <= number < len(self.front.points):
            raise ParetuneError("there is no such point")
        point = self.front.points[number]
        if point.drawn_by not in self.methods:
            raise ParetuneError(f"the page cannot draw {point.name}: this run has {', '.join(self.methods)}")
        return str(point.drawn_by), point.preference

    def examples(self, most: int = 6) -> list[str]:
        """Held-out prompts, taken from the rewards in turn. Those that most rewards can score come first.

        A recipe may name any file of the user as its prompts. So if a run is not trusted, only prompts that
        are in the run's evaluation are shown.
        """
        assert self.source.config is not None
        assert self.source.run_folder is not None
        rows = [] if self.source.trusted else read_rows(self.source.run_folder / "evaluation.jsonl")
        measured = {row.get("prompt") for row in rows}
        sets = []
        for reward_config in self.source.config.rewards.values():
            try:
                texts = [p.text for p in load_prompts(reward_config.eval_prompts)[:most]]
                sets.append([text for text in texts if self.source.trusted or text in measured])
            except ParetuneError:  # the file may no longer exist
                continue
        turns = list(dict.fromkeys(texts[i] for i in range(most) for texts in sets if i < len(texts)))[:most]
        return sorted(turns, key=lambda text: -self._said_of(text)) or [self.view.example]

    def _asked(self, method: str, preference: tuple[float, ...]) -> tuple[float, ...] | None:
        """The preference to ask for. For MapReduce at the recipe's weights it is None, the merged model.

        That model was measured. The exact average is another model if the recipe reduces in another way or
        compresses.
        """
        merged = method == "mapreduce" and near(preference, self.source.default_preference)
        return None if merged else preference

    def _said_of(self, text: str) -> int:
        prompt = self.source.known.get(text, Prompt(text))
        return sum(applies_to(reward, prompt) for reward in self.sampler.rewards())

    def _draw(self, request: Request) -> Kept:
        """The first sample that `paretune sample` would write for a request."""
        done = self.sampler.draw_scored(request)
        settings = {**self.sampler.settings(request), "index": 0}
        return Kept(self.medium.content(done.samples, 0, settings), done.scores[0], done.left_out)

    def _range(self, name: str, bounds: tuple[float, float]) -> tuple[float, float]:
        """The ends of a bar: the bounds of the reward, or those of the measured models where it has none."""
        index = self.source.rewards.index(name)
        values = [p.values[index] for p in self.front.points]
        low, high = bounds
        return (
            low if math.isfinite(low) else min(values, default=0.0),
            high if math.isfinite(high) else max(values, default=1.0),
        )
