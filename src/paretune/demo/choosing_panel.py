"""The part of the page that asks "Which do you like better?", and sets the sliders to what choices show."""
# pyright: reportMissingImports=false, reportPrivateImportUsage=false
# Gradio is installed by the extra `demo`. The way it fills its namespace makes public names look private.

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import gradio as gr

from ..types import ParetuneError
from . import markup
from .answers import Answers
from .choosing import FEWEST, MOST, Chooser, Question

QUICK: dict[str, Any] = {
    "trigger_mode": "always_last", "show_progress": "hidden", "api_visibility": "private",
    "concurrency_id": "draw", "concurrency_limit": 1,
    "preprocess": False,  # `asked` checks what comes in, so that no message of Python is shown
}  # fmt: skip
HEAD = (
    "<h2>Which do you like better?</h2><p class='pt-note'>{} to {} choices between two samples set the "
    "sliders to the weights that explain them best. Choices that differ in no reward say nothing.</p>"
)


class Host(Protocol):
    """The page around it: its controls, their order in a question, and the places of its answer."""

    answers: Answers
    message: Any
    method: Any
    sliders: list[Any]
    setting: list[Any]
    shown: list[Any]

    def answer(self, prompt: Any, method: Any, tokens: Any, seed: Any, *weights: Any) -> list[Any]:
        """What `shown` gets for a setting."""
        ...


class Choosing:
    """The question, its buttons and its result."""

    def __init__(self, page: Host) -> None:
        self.page, self.chooser = page, Chooser(page.answers)
        gr.HTML(HEAD.format(FEWEST, MOST), elem_id="pt-choose-head")
        with gr.Row(elem_id="pt-choose"):
            with gr.Column(scale=3, min_width=280):
                self.samples = gr.HTML(elem_id="pt-pair")
                with gr.Row():
                    names = ("start", "A", "B", "neither")
                    words = ("Start", "A is better", "B is better", "Neither")
                    self.buttons = [
                        gr.Button(word, elem_id=f"pt-choose-{name}", visible=name == "start", min_width=80)
                        for name, word in zip(names, words, strict=True)
                    ]
            with gr.Column(scale=2, min_width=280):
                self.told = gr.HTML(elem_id="pt-told")
        self.state = gr.Textbox("", visible=False, elem_id="pt-choices")
        self._wire()

    def _wire(self) -> None:
        page, (start, *sides) = self.page, self.buttons
        own = [self.samples, self.told, self.state, *self.buttons]
        start.click(self._start, [page.method], [page.message, *own], **QUICK)
        outputs = [*own, *page.sliders, *page.shown]
        for button, side in zip(sides, (0, 1, None), strict=True):
            button.click(partial(self._choose, side), [self.state, *page.setting], outputs, **QUICK)

    def _start(self, method: Any) -> list[Any]:
        asked = self._ask(lambda: self.chooser.begin(method))
        if isinstance(asked, str):
            return [markup.message(asked), *[gr.skip()] * (3 + len(self.buttons))]
        return ["", *self._own(asked)]

    def _choose(self, side: int | None, state: Any, prompt: Any, method: Any, tokens: Any, seed: Any,
                *weights: Any) -> list[Any]:  # fmt: skip
        count = len(self.page.sliders)
        asked = self._ask(lambda: self.chooser.choose(state, side, method))
        if isinstance(asked, str):
            kept = [gr.skip()] * (3 + len(self.buttons) + count)
            return [*kept, markup.message(asked), *[gr.skip()] * 3]
        if asked.preference is None:
            return [*self._own(asked), *[gr.skip()] * count, "", *[gr.skip()] * 3]
        answer = self.page.answer(prompt, method, tokens, seed, *asked.preference, *weights[count:])
        return [*self._own(asked), *(round(share, 2) for share in asked.preference), *answer]

    def _own(self, asked: Question) -> list[Any]:
        going = bool(asked.samples)
        start = gr.update(value="Start again")
        return [asked.samples, asked.told, asked.state, start, *[gr.update(visible=going)] * 3]

    def _ask(self, question: Callable[[], Question]) -> Question | str:
        """The next question, or the line of a user's mistake."""
        try:
            return question()
        except ParetuneError as error:
            return str(error)
        except Exception as error:
            raise gr.Error("this could not be drawn; the server's own lines say why") from error
